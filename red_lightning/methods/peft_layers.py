"""Base of the methods that use layers of peft (github.com/huggingface/peft)."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from red_lightning.editing.learned import Learned
from red_lightning.editing.sites import find_sites, inside_blocks, linears
from red_lightning.editing.surgery import EDITOR, fold, freeze, require_unedited, trainable
from red_lightning.errors import UsageError
from red_lightning.families import record_of
from red_lightning.methods.method import Method


class PeftLayers(Method):
    """Base of the methods that use layers of peft, each around one linear of the backbone.

    The linear becomes ``base_layer`` of its layer, and moves back when the method is detached. Linears are adapted as a
    whole: GPT-2's fused query, key and value have one layer.

    Attributes:
        sites: Site names or module names. None is every linear of the blocks.
        layers: Layer numbers. None is all.
    """

    sites: list[str] | None
    layers: list[int] | None

    @abstractmethod
    def config(self, backbone: nn.Module) -> Any:
        """Return peft's configuration of the method, without target modules."""

    def apply(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """Freeze the backbone and put a layer around each linear. The output is unchanged at first.

        Args:
            backbone: A Hugging Face model.

        Returns:
            The parameters of the layers, by name, such as ``...attention.self.query.lora_A.editor.weight``: float32.

        Raises:
            UsageError: A site is unknown, matches nothing or is no linear, or the backbone is edited already.
        """
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING  # slow to import

        require_unedited(backbone)
        if next(adapted(backbone), None):
            raise UsageError("the backbone is adapted already; detach or merge that method first")
        chosen: dict[str, Any] = {name: backbone.get_submodule(name) for name in self.targets(backbone)}
        config = self.config(backbone)
        config.target_modules = one_of(list(chosen))
        config.fan_in_fan_out = isinstance(next(iter(chosen.values())), Conv1D)
        freeze(backbone)
        for name, linear in chosen.items():
            _put(backbone, name, _stand_in(linear))
        meta = next(backbone.parameters()).is_meta  # parameters are only counted
        with _float32():
            PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](backbone, config, EDITOR, low_cpu_mem_usage=meta)
        for name, linear in chosen.items():
            backbone.get_submodule(name).base_layer = linear
        del backbone.peft_config  # else peft treats the next method as a second adapter
        kept: dict[nn.Module, nn.Module] = {}
        for _, layer in adapted(backbone):
            layer.train(layer.base_layer.training)
            for name, part in list(layer.named_children()):
                if name != "base_layer":
                    kept[part] = kept[part] if part in kept else _learned(type(part), dict(part.items()))
                    setattr(layer, name, kept[part])  # VeRA's layers share theirs
        return trainable(backbone)

    def targets(self, backbone: nn.Module) -> list[str]:
        """Return the names of the adapted linears, in the backbone's order.

        Raises:
            UsageError: A site is unknown, matches nothing or is no linear.
        """
        if self.sites is None:
            sites = [site.module for site in inside_blocks(backbone, linears(backbone))]
        else:
            sites = list(_whole(backbone, self.sites))
        names = [site.module for site in find_sites(backbone, sites, self.layers)]
        for name in names:
            if not isinstance(module := backbone.get_submodule(name), nn.Linear | Conv1D):
                raise UsageError(
                    f"{type(self).__name__} adapts linears, but '{name}' is a {type(module).__name__}; choose other "
                    "sites"
                )
        return names

    def detach(self, backbone: nn.Module) -> None:
        """Put each linear back under its own name. The backbone is bitwise identical to the one before."""
        for name, layer in list(adapted(backbone)):
            _put(backbone, name, layer.base_layer)

    @torch.no_grad()
    def fold(self, backbone: nn.Module) -> None:
        """Merge each layer into the weights of its linear, rounded once to their dtype, and detach.

        Raises:
            UsageError: A linear's weights are quantized. Nothing was changed then.
        """
        layers: list[Any] = [layer for _, layer in adapted(backbone)]
        for layer in layers:
            fold(layer.base_layer, None, None)  # refuses before anything is changed
        for layer in layers:
            layer.merge()
        self.detach(backbone)


def adapted(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield peft's layers in a backbone, with their names."""
    return ((name, module) for name, module in backbone.named_modules() if hasattr(module, "base_layer"))


def one_of(names: Sequence[str]) -> str:
    """Return a regular expression for module names, which peft matches in full."""
    return "|".join(map(re.escape, names))


def _whole(backbone: nn.Module, sites: Sequence[str]) -> Iterator[str]:
    """Yield the sites, and the wider modules that the family's record names for methods that adapt whole linears."""
    record = record_of(getattr(backbone, "config", None))
    for site in sites:
        wider = record.wider.get(site) if record else None
        if record is None or wider is None or site in record.sites:
            yield site
        if wider is not None:
            yield wider


def _put(backbone: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, module)


def _stand_in(linear: Any) -> nn.Module:
    """Return a float32 linear of the same sizes without memory, for peft to build a layer around.

    Around the linear itself, peft would read the size of a shard as that of the weight and round initial values to the
    weight's dtype. Its layers for quantized weights may also change the dtype of the input ((IA)3).
    """
    with torch.device("meta"):
        if isinstance(linear, Conv1D):
            like: Any = Conv1D(linear.nf, linear.nx)
        else:
            like = nn.Linear(linear.in_features, linear.out_features)
    one = torch.zeros(1, device=linear.weight.device, dtype=torch.float32)
    like.weight, like.bias = nn.Parameter(one.expand(like.weight.shape)), None
    return like


@contextmanager
def _float32() -> Iterator[None]:
    """Make float32 torch's default dtype, which peft uses for initial values. Lightning's bf16-true sets bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _learned(kind: Any, tensors: dict[str, Any]) -> nn.Module:
    """Return peft's container of tensors by adapter as a module that stays float32 whatever the backbone's dtype."""
    container: nn.Module = type(kind.__name__, (Learned, kind), {})(tensors)
    return container
