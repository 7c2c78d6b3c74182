"""Find the edit sites of a backbone, by site name or by module-name patterns."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from red_lightning.editing.site_proposals import proposal
from red_lightning.errors import UsageError, nearest
from red_lightning.families import SITES, Architecture, architecture_of


@dataclass(frozen=True)
class Site:
    """One module whose output is edited.

    Attributes:
        module: Full name of the module.
        layer: Layer number (in an encoder-decoder each stack counts from 0); None if the name holds no number.
        width: Columns of the module's output.
        columns: The ``(start, stop)`` ranges of columns that are edited; None for all of them.
    """

    module: str
    layer: int | None
    width: int
    columns: tuple[tuple[int, int], ...] | None = None


def find_sites(backbone: nn.Module, sites: Sequence[str], layers: Sequence[int] | None = None) -> list[Site]:
    """Find the modules that a choice of sites names, in the order in which the backbone holds them.

    Args:
        backbone: A Hugging Face model (or any module, if all sites are module-name patterns).
        sites: Site names (``ffn``, ``attention``, ``query``, ``key``, ``value``, ``residual``) or module-name patterns
            (``*.mlp.down_proj``).
        layers: Layer numbers to keep; None for all. Negative numbers count from the last layer.

    Returns:
        One entry per module.

    Raises:
        UsageError: A site is unknown, matches nothing, or a layer does not exist.
    """
    if not sites:
        raise UsageError("no sites are given; choose at least one of " + ", ".join(SITES))
    found: dict[str, Site] = {}
    for name in sites:
        for site in _match(backbone, name):
            found[site.module] = _merge(found[site.module], site) if site.module in found else site
    order = {name: position for position, (name, _) in enumerate(backbone.named_modules())}
    every = sorted(found.values(), key=lambda site: order[site.module])
    return every if layers is None else _of_layers(every, layers)


def _match(backbone: nn.Module, name: str) -> list[Site]:
    """The sites of one name or pattern."""
    if "." in name or "*" in name:
        return _match_pattern(backbone, name)
    if name not in SITES:
        raise UsageError(
            f"unknown site '{name}': {nearest(name, SITES)}; or a module-name pattern such as '*.mlp.down_proj'"
        )
    architecture = architecture_of(getattr(backbone, "config", None), partial(proposal, backbone))
    if name not in architecture.sites:
        raise UsageError(f"{architecture.name} has no site '{name}'; it has {', '.join(architecture.sites)}")
    within = architecture.sites[name]
    found = []
    for module_name, match in _matching(backbone, architecture.site_pattern(name)):
        module = backbone.get_submodule(module_name)
        width = None if name == "residual" else width_of(module)
        if width is None and name in ("ffn", "residual"):
            width = _block_width(backbone, architecture, module_name)
        if width is None:  # a norm in which a block ends may lie beside it (XLM)
            width = width_of(module)
        if width is None:
            raise UsageError(f"the width of '{module_name}' cannot be told: it is a {type(module).__name__}")
        step = width // within.parts
        columns = ((within.part * step, (within.part + 1) * step),) if within.parts > 1 else None
        found.append(Site(module_name, int(match["layer"]), width, columns))
    if not found:
        raise UsageError(f"this {architecture.name} has no module for the site '{name}'")
    return found


def _matching(backbone: nn.Module, pattern: "re.Pattern[str]") -> Iterable[tuple[str, "re.Match[str]"]]:
    for name, _ in backbone.named_modules():
        if match := pattern.fullmatch(name):
            yield name, match


def _match_pattern(backbone: nn.Module, pattern: str) -> list[Site]:
    names = [name for name, _ in backbone.named_modules() if name]
    chosen = [name for name in names if fnmatchcase(name, pattern)]
    if not chosen:
        linears = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear | Conv1D)]
        raise UsageError(
            f"no module matches the site pattern '{pattern}'; linears of this model are, for example, "
            + ", ".join(f"'{re.sub(r'[.][0-9]+[.]', '.*.', n)}'" for n in linears[-3:])
        )
    found = []
    for name in chosen:
        width = width_of(backbone.get_submodule(name))
        if width is None:
            kind = type(backbone.get_submodule(name)).__name__
            raise UsageError(f"the width of '{name}' (a {kind}) cannot be told; name a linear or a norm inside it")
        number = re.search(r"\.(\d+)(?:\.|$)", name)
        found.append(Site(name, int(number[1]) if number else None, width))
    return found


def linears(backbone: nn.Module) -> list[Site]:
    """Every linear of the backbone, those outside its blocks too."""
    return _every(backbone, lambda module: isinstance(module, nn.Linear | Conv1D))


def norms(backbone: nn.Module) -> list[Site]:
    """Every LayerNorm and RMSNorm of the backbone with learned weights, those outside its blocks too."""
    return _every(backbone, lambda module: epsilon_of(module) is not None and width_of(module) is not None)


def inside_blocks(backbone: nn.Module, sites: Sequence[Site]) -> list[Site]:
    """Those of the modules that lie in the backbone's blocks.

    Raises:
        UsageError: The family has no record of what its blocks are called.
    """
    record = architecture_of(getattr(backbone, "config", None), partial(proposal, backbone))
    block = re.compile(record.block_pattern().pattern + r"(?:\..+)?")
    return [site for site in sites if block.fullmatch(site.module)]


def epsilon_of(module: nn.Module) -> float | None:
    """The small number that keeps a norm from dividing by zero; None for a module that is no norm."""
    epsilon = getattr(module, "eps", getattr(module, "variance_epsilon", None))
    return epsilon if isinstance(epsilon, float) else None


def _every(backbone: nn.Module, chosen: Callable[[nn.Module], bool]) -> list[Site]:
    every = [(name, width_of(module)) for name, module in backbone.named_modules() if name and chosen(module)]
    return [Site(name, None, width) for name, width in every if width is not None]


def width_of(module: nn.Module) -> int | None:
    """Columns of a linear's or norm's output; None for other modules. Read off the module, never the config."""
    if isinstance(module, Conv1D):
        return module.nf
    weight = getattr(module, "weight", None)
    of_norm = weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 1 else None
    return getattr(module, "out_features", of_norm)


def _block_width(backbone: nn.Module, architecture: Architecture, name: str) -> int | None:
    """Columns of a block's output: those of a linear that is added to it. A mixture of experts does not end in one."""
    block = re.match(architecture.block_pattern(), name)
    for site in ("ffn", "attention"):
        inside = re.compile(re.escape(block[0] if block else name) + r"\." + architecture.sites[site].module)
        for found, _ in _matching(backbone, inside):
            if (width := width_of(backbone.get_submodule(found))) is not None:
                return width
    return None


def _merge(first: Site, second: Site) -> Site:
    """Two sites in one module are one: GPT-2's query, key and value make up its whole fused projection."""
    if first.columns is None or second.columns is None:
        return Site(first.module, first.layer, first.width)
    columns = tuple(sorted({*first.columns, *second.columns}))
    whole = sum(stop - start for start, stop in columns) == first.width
    return Site(first.module, first.layer, first.width, None if whole else columns)


def _of_layers(sites: list[Site], layers: Sequence[int]) -> list[Site]:
    numbers = {site.layer for site in sites if site.layer is not None}
    if not numbers:
        raise UsageError("layers cannot be chosen: the names of the edited modules hold no layer number")
    count = max(numbers, default=-1) + 1
    wanted = {layer + count if layer < 0 else layer for layer in layers}
    if unknown := sorted(layer for layer in layers if (layer + count if layer < 0 else layer) not in numbers):
        raise UsageError(f"layers {unknown} do not exist: the backbone's edited layers are 0 to {count - 1}")
    if not wanted:
        raise UsageError("layers is an empty list, so nothing would be edited; leave it out to edit every layer")
    return [site for site in sites if site.layer in wanted]
