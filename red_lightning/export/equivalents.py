"""Standard architectures that can hold the biases of a merged model."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig

from red_lightning.backbones.weight_streaming import stored_tensors
from red_lightning.families import record_of

BIASES = ("attention_bias", "mlp_bias", "norm_bias", "enable_bias", "use_bias", "bias", "attention_out_bias")
"""The fields by which transformers' configurations give biases to linears and norms that have none."""

LLAMA_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)

LENGTH_FREE = ("default", "linear", "llama3")
"""The kinds of rotary positions that do not depend on how long texts may be."""


@dataclass(frozen=True)
class Form:
    """A plain architecture that may compute what a backbone does.

    Attributes:
        auto: The transformers class that loads it.
        config: Its configuration.
        note: What to know of it, in words; empty if it is the backbone's own architecture.
        parts: For the name of a fused linear, those of the linears it is here, and their output columns.
        base: What stands before the backbone's names.
    """

    auto: Any
    config: Any
    note: str = ""
    parts: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    base: str = ""

    def build(self) -> nn.Module:
        """The model, on the meta device."""
        with torch.device("meta"):
            model = self.auto.from_config(deepcopy(self.config), dtype=torch.float32)
        model.tie_weights()
        return model

    def renamed(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A tensor of the backbone under the name, or as the parts, that it has here."""
        module, _, leaf = name.rpartition(".")
        parent, _, child = module.rpartition(".")
        parts = self.parts.get(child)
        if parts is None:
            yield self.base + name, tensor
            return
        for (part, _), values in zip(parts, tensor.split([width for _, width in parts]), strict=True):
            yield f"{self.base}{parent}.{part}.{leaf}", values.clone()

    def added_biases(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The biases that the form has beside some tensors, and which are zero; None if these do not fit.

        Args:
            model: The result of :meth:`build`.
            tensors: All that is to be stored, by its name here; only the shapes count.
        """
        wanted, every = stored_tensors(model), model.state_dict(keep_vars=True)  # tied ones under each of their names
        if any(name not in every or every[name].shape != tensor.shape for name, tensor in tensors.items()):
            return None
        # a pooler is left out where nothing reads it: transformers makes one up
        rest = {n: t for n, t in wanted.items() if n not in tensors and not n.startswith("pooler.")}
        return rest if all(name.endswith(".bias") for name in rest) else None


def forms(auto: Any, config: Any) -> Iterator[Form]:
    """The plain architectures that may hold what a backbone's edits add, those nearest to it first.

    The first is the backbone's own, then its own with biases switched on; the last are a Llama's, which is what
    Mistral, Qwen 2 and Phi-3 are but for their biases, their attention window and their fused linears.

    Args:
        auto: The transformers class that loads the backbone.
        config: The backbone's configuration.
    """
    yield from _with_biases(Form(auto, config))
    if (llama := _as_llama(auto, config)) is not None:
        yield from _with_biases(llama)


def older_names(config: Any) -> dict[str, Any]:
    """What transformers 5 renamed in a configuration, under the names that servers and transformers 4 read."""
    names: dict[str, Any] = {"torch_dtype": str(config.dtype).removeprefix("torch.")}
    if config.model_type == "gpt2":
        names["n_ctx"] = config.n_positions
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


def _as_llama(auto: Any, config: Any) -> Form | None:
    """A Llama that computes the same, up to the length of the attention window if there is one."""
    record = record_of(config)
    if record is None or config.model_type not in record.as_llama:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    whole = rope.get("partial_rotary_factor", 1.0) == 1.0
    if rope.get("rope_type", "default") not in LENGTH_FREE or not whole:
        return None
    values = {name: value for name in LLAMA_FIELDS if (value := getattr(config, name, None)) is not None}
    note, window = f"this {config.model_type} as a Llama", _window(config)
    if window is not None and window < config.max_position_embeddings:
        values["max_position_embeddings"] = window
        note += f" for texts of at most {window} tokens, its attention window,"
    llama: Any = LlamaConfig(**values)
    columns, shared = (llama.head_dim * count for count in (llama.num_attention_heads, llama.num_key_value_heads))
    parts = {
        "qkv_proj": (("q_proj", columns), ("k_proj", shared), ("v_proj", shared)),
        "gate_up_proj": (("gate_proj", llama.intermediate_size), ("up_proj", llama.intermediate_size)),
    }
    return Form(auto, llama, note, parts if record.as_llama[config.model_type] else {})


def _window(config: Any) -> int | None:
    """How many tokens a token sees at most, itself included; None if all before it."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)
