"""RED, Representation Editing: ``h2 = scaling * h1 + bias`` (arXiv 2402.15179, section 3.2, equation 3)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from red_lightning.editing.learned import Learned
from red_lightning.editing.sites import find_sites
from red_lightning.editing.surgery import (
    EDITOR,
    attach,
    detach,
    edited_modules,
    fold,
    freeze,
    require_unedited,
    trainable,
)
from red_lightning.errors import UsageError
from red_lightning.families import ARCHITECTURES
from red_lightning.methods.method import Method
from red_lightning.methods.options import defaults_of

RED_PLUS_SITES = ["query", "key", "value", "attention", "ffn"]
"""The sites of RED+ (``RED++`` in the authors' repository)."""

CITATION = """\
@article{wu2024advancing,
  title   = {Advancing Parameter Efficiency in Fine-tuning via Representation Editing},
  author  = {Muling Wu and Wenhao Liu and Xiaohua Wang and Tianlong Li and Changze Lv and Zixuan Ling and Jianhao Zhu
             and Cenyuan Zhang and Xiaoqing Zheng and Xuanjing Huang},
  journal = {arXiv preprint arXiv:2402.15179},
  year    = {2024},
  url     = {https://arxiv.org/abs/2402.15179}
}"""


class RepresentationEditor(Learned):
    """Edit one site: ``h2 = scaling * h1 + bias`` (paper, equation 3), with one trainable number each per column.

    The vectors are float32 with any dtype of the backbone, and the edit is computed in float32 and rounded once. In
    bfloat16 a scaling would never leave 1, because its neighbour there is 1.0078.

    Args:
        width: Columns of the site's output.
        scaling: Learn a scaling (starts at ones).
        bias: Learn a bias (starts at zeros).
        columns: Ranges ``(start, stop)`` of the columns to edit. None edits all.

    Attributes:
        scaling: float32, shape (edited columns,), or None.
        bias: float32, shape (edited columns,), or None.
    """

    def __init__(
        self,
        width: int,
        scaling: bool = True,
        bias: bool = True,
        columns: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.columns = None if columns is None else tuple(columns)
        count = width if columns is None else sum(stop - start for start, stop in columns)
        self.scaling = nn.Parameter(torch.ones(count, dtype=torch.float32)) if scaling else None
        self.bias = nn.Parameter(torch.zeros(count, dtype=torch.float32)) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Edit a representation, in float32 and rounded once.

        Args:
            hidden: Floating point, shape (..., width).

        Returns:
            The edited representation; shape and dtype of ``hidden``.
        """
        scaling, bias = self.vectors()
        if scaling is None:
            return hidden if bias is None else (hidden + bias).to(hidden.dtype)
        if bias is None:
            return (hidden * scaling).to(hidden.dtype)
        return torch.addcmul(bias, hidden, scaling).to(hidden.dtype)

    def vectors(self) -> tuple[Tensor | None, Tensor | None]:
        """Return scaling and bias over the whole width: float32, shape (width,), the identity where not edited."""
        return self._over_width(self.scaling, 1.0), self._over_width(self.bias, 0.0)

    def extra_repr(self) -> str:
        """Return the text that ``print(backbone)`` shows."""
        names = [name for name in ("scaling", "bias") if getattr(self, name) is not None]
        return f"{self.width}, {' and '.join(names)}" + (f", columns={self.columns}" if self.columns else "")

    def _over_width(self, vector: Tensor | None, identity: float) -> Tensor | None:
        if vector is None or self.columns is None:
            return vector
        full = vector.new_full((self.width,), identity)
        index = torch.cat([torch.arange(start, stop, device=vector.device) for start, stop in self.columns])
        return full.index_put((index,), vector)


class RED(Method):
    """RED, Representation Editing: two learned vectors at each edited site of a frozen backbone.

    Args:
        sites: Sites to edit: any of ``ffn`` (the paper), ``attention``, ``query``, ``key``, ``value`` and ``residual``
            (Table 7; RED+ is all but ``residual``), or module-name patterns such as ``*.mlp.down_proj`` for unsupported
            architectures. The bias of the key has no effect: the softmax ignores it.
        vectors: Vectors to learn: ``both``, ``scaling`` or ``bias`` (ablation of Table 6).
        layers: Layers to edit, counted from 0 (negative: from the last). null edits all.
    """

    combines = "affine"
    unites = True
    tags = ("representation-editing", "parameter-efficient-fine-tuning")
    summary = (
        "Representation Editing (RED) leaves the backbone's weights unchanged. The output `h` of an edited module "
        "becomes `s * h + b`, with two learned vectors `s` and `b`."
    )
    citation = CITATION

    def __init__(
        self,
        sites: list[str] = ["ffn"],  # noqa: B006 - never changed; a literal default shows in --help
        vectors: Literal["both", "scaling", "bias"] = "both",
        layers: list[int] | None = None,
    ) -> None:
        if vectors not in ("both", "scaling", "bias"):
            raise UsageError(f"unknown vectors '{vectors}': choose both, scaling or bias")
        self.sites = list(sites)
        self.vectors = vectors
        self.layers = None if layers is None else list(layers)

    @classmethod
    def unite(cls, options: Sequence[Mapping[str, Any]], modules: Sequence[str]) -> dict[str, Any]:
        """Return options with the sites, layers and vectors of several adapters.

        Raises:
            UsageError: No options describe all the edits and nothing else.
        """
        for name in sorted({*options[0]} - {"sites", "layers", "vectors"}):  # those of a custom subclass
            if any(option.get(name) != options[0][name] for option in options):
                raise UsageError(f"the edits have different values of '{name}'; combine edits that share it")
        taken = {*options[0]}
        options = [{**defaults_of(RED), **option} for option in options]  # a subclass may take fewer
        sites = [frozenset(option["sites"]) for option in options]
        layers = [option["layers"] for option in options]
        if len(set(sites)) > 1 and any(chosen != layers[0] for chosen in layers):
            raise UsageError(
                f"the edits have different sites and different layers, and {cls.__name__} edits the same sites in each "
                "of its layers; combine edits that share the sites or the layers"
            )
        parts = {chosen & {"query", "key", "value"} for chosen in sites}
        if len(parts) > 1 and (fused := sorted(filter(_is_fused, modules))):
            raise UsageError(
                f"the edits have different parts of '{fused[0]}' (query, key, value); combine edits that share them"
            )
        kinds = {option["vectors"] for option in options}
        united = {
            **options[0],
            "sites": list(dict.fromkeys(site for option in options for site in option["sites"])),
            "layers": None if None in layers else sorted({layer for chosen in layers for layer in chosen or ()}),
            "vectors": kinds.pop() if len(kinds) == 1 else "both",
        }
        return {name: value for name, value in united.items() if name in taken}

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and attach an editor to each site. The output is bitwise unchanged at first.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The vectors by name, such as ``transformer.h.0.mlp.c_proj.editor.scaling``: float32, shape (width,).

        Raises:
            UsageError: A site is unknown, matches nothing or is edited already, or a layer does not exist.
        """
        require_unedited(backbone)
        chosen = find_sites(backbone, self.sites, self.layers)
        freeze(backbone)
        for site in chosen:
            editor = RepresentationEditor(site.width, self.vectors != "bias", self.vectors != "scaling", site.columns)
            attach(backbone, site, editor)
        return trainable(backbone)

    def fold(self, backbone: nn.Module) -> None:
        """Merge every edit into the linear before it (``W' = diag(s) W``, ``c' = s * c + b``), and detach.

        A linear without a bias (Llama, T5) gets one, in memory: ``save_pretrained`` cannot carry it.

        Raises:
            UsageError: A site is no linear (``residual``), or its weights are quantized. Nothing was changed then.
        """
        fold_editors(backbone)


def _is_fused(module: str) -> bool:
    """Return whether several sites are parts of one module's output."""
    return any(
        within.parts > 1 and architecture.site_pattern(site).fullmatch(module)
        for architecture in ARCHITECTURES
        for site, within in architecture.sites.items()
    )


def fold_editors(backbone: nn.Module) -> None:
    """Merge every :class:`RepresentationEditor` into the linear or LayerNorm before it, and detach.

    Raises:
        UsageError: A site is neither, or its weights are quantized. Nothing was changed then.
    """
    modules = edited_modules(backbone)
    for _, module in modules:
        fold(module, None, None)  # refuses before anything is changed
    for _, module in modules:
        fold(module, *_vectors(module))
    detach(backbone)


def _vectors(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    editor = module.get_submodule(EDITOR)
    assert isinstance(editor, RepresentationEditor)
    scaling, bias = editor.vectors()
    return None if scaling is None else scaling.detach(), None if bias is None else bias.detach()
