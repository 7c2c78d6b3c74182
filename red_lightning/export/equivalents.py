"""Standard architectures that can hold the biases of a merged model."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from red_lightning.backbones.weight_streaming import stored_tensors
from red_lightning.families import record_of

BIASES = ("attention_bias", "mlp_bias", "norm_bias", "enable_bias", "use_bias", "bias", "attention_out_bias")
"""The fields by which transformers' configurations give biases to linears and norms that have none."""

LENGTH_FREE = ("default", "linear", "llama3")
"""The kinds of rotary positions that do not depend on how long texts may be."""


@dataclass(frozen=True)
class Form:
    """A standard architecture that may compute what a backbone computes.

    Attributes:
        auto: The transformers class that loads it.
        config: Its configuration.
        note: How it differs from the backbone's own architecture, in words; empty if it is that.
        parts: For the name of a fused linear of the backbone, the names and output columns of the linears here.
        base: Prefix of the backbone's parameters here.
    """

    auto: Any
    config: Any
    note: str = ""
    parts: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    base: str = ""

    def build(self) -> nn.Module:
        """Return the model, on the meta device."""
        with torch.device("meta"):
            model = self.auto.from_config(deepcopy(self.config), dtype=torch.float32)
        model.tie_weights()
        return model

    def renamed(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield a tensor of the backbone by its name here, or its parts if the linear is not fused here."""
        module, _, leaf = name.rpartition(".")
        parent, _, child = module.rpartition(".")
        parts = self.parts.get(child)
        if parts is None:
            yield self.base + name, tensor
            return
        for (part, _), values in zip(parts, tensor.split([width for _, width in parts]), strict=True):
            yield f"{self.base}{parent}.{part}.{leaf}", values.clone()

    def added_biases(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Return the biases that the form has beside some tensors; None if the tensors do not fit.

        Args:
            model: The result of :meth:`build`.
            tensors: Every tensor to store, by its name here; only the shapes count.
        """
        wanted, every = stored_tensors(model), model.state_dict(keep_vars=True)  # tied ones under each of their names
        if any(name not in every or every[name].shape != tensor.shape for name, tensor in tensors.items()):
            return None
        # a pooler is left out where nothing reads it: transformers makes one up
        rest = {n: t for n, t in wanted.items() if n not in tensors and not n.startswith("pooler.")}
        return rest if all(name.endswith(".bias") for name in rest) else None


def forms(auto: Any, config: Any) -> Iterator[Form]:
    """Yield the standard architectures that may hold the biases of a backbone's edits, the nearest first.

    First the backbone's own, then its own with biases switched on, then the same two for the equivalent in the record
    of its family.

    Args:
        auto: The transformers class that loads the backbone.
        config: The backbone's configuration.
    """
    yield from _with_biases(Form(auto, config))
    if (equivalent := _equivalent(auto, config)) is not None:
        yield from _with_biases(equivalent)


def older_names(config: Any) -> dict[str, Any]:
    """Return the fields that transformers 5 renamed, under the names that servers and transformers 4 read."""
    names: dict[str, Any] = {"torch_dtype": str(config.dtype).removeprefix("torch.")}
    record = record_of(config)
    names |= {old: getattr(config, name) for old, name in (record.older_fields if record else {}).items()}
    rope = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" not in rope:  # none, or one for each kind of layer
        return names
    names["rope_theta"] = names["rotary_emb_base"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        names["partial_rotary_factor"] = names["rotary_pct"] = rope["partial_rotary_factor"]
    if rope.get("rope_type", "default") != "default":
        names["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return names


def _with_biases(form: Form) -> Iterator[Form]:
    yield form
    missing = [name for name in BIASES if getattr(form.config, name, None) is False]
    for count in range(1, len(missing) + 1):
        for chosen in combinations(missing, count):
            config = deepcopy(form.config)
            for name in chosen:
                setattr(config, name, True)
            note = f"{form.note or config.model_type} with {' and '.join(chosen)}"
            yield Form(form.auto, config, note, form.parts, form.base)


def _equivalent(auto: Any, config: Any) -> Form | None:
    """Return the equivalent that the family's record names.

    None if there is none, or if the positions of the equivalent would differ. Its texts are at most as long as the
    attention window of the backbone.
    """
    record = record_of(config)
    equivalent = record.equivalents.get(config.model_type) if record else None
    rope = getattr(config, "rope_parameters", None) or {}
    whole = rope.get("partial_rotary_factor", 1.0) == 1.0
    if equivalent is None or rope.get("rope_type", "default") not in LENGTH_FREE or not whole:
        return None
    values = {name: value for name in equivalent.fields if (value := getattr(config, name, None)) is not None}
    note, window = f"this {config.model_type} as a {equivalent.name}", _window(config)
    if window is not None and window < config.max_position_embeddings:
        values["max_position_embeddings"] = window
        note += f" for texts of at most {window} tokens, its attention window,"
    other = AutoConfig.for_model(equivalent.model_type, **values)
    return Form(auto, other, note, equivalent.parts(other) if equivalent.parts else {})


def _window(config: Any) -> int | None:
    """Return how many tokens a token attends to at most, itself included; None if to all before it."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)
