"""Identify a backbone by a short digest of its weights."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.backbones.quantization import in_fewer_bits
from red_lightning.backbones.sharding import is_divided

COUNT = 256
"""How many values of each parameter count."""


SUMMARY = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
"""What of a configuration says in which way two backbones differ."""


def summary(config: Any) -> dict[str, Any]:
    """Family and size of a backbone, by the names that transformers' configurations share.

    Args:
        config: Its Hugging Face configuration.
    """
    return {name: getattr(config, name) for name in SUMMARY if getattr(config, name, None) is not None}


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first thing in which one :func:`summary` differs from another, in words; None if nothing is known to."""
    for name, value in wanted.items():
        if found.get(name, value) != value:
            return f"{name} is {found[name]} and not {value}"
    return None


def fingerprint(backbone: nn.Module) -> str:
    """A short digest of a backbone: names, shapes and the signs of the first values of its parameters.

    Signs, because they alone survive every rounding: a backbone loaded in another dtype is still the same one. Where
    the weights are divided over processes, all of them must call this at once.
    """
    parameters = dict(backbone.named_parameters())
    return fingerprint_of(parameters, _signs(parameters))


def fingerprint_of(parameters: Mapping[str, Tensor], signs: Mapping[str, bytes]) -> str:
    """The fingerprint of parameters of which only the shapes are looked at, and the signs of first values."""
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        if name.startswith("pooler."):  # a classifier's backbone may have been loaded without it
            continue
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(signs.get(name, b""))
    return digest.hexdigest()[:16]


def _signs(parameters: dict[str, nn.Parameter]) -> dict[str, bytes]:
    """Whether each of the first values is negative, for each parameter that has values."""
    signs, divided = {}, {}
    parameter: Any
    for name, parameter in parameters.items():
        if is_divided(parameter):
            divided[name] = first_signs(parameter.to_local())
        elif not in_fewer_bits(parameter) and not parameter.is_meta:
            signs[name] = first_signs(parameter)
    if divided:  # along the first dimension, so the first values lie in the first processes
        parts: list[dict[str, bytes]] = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, divided)
        signs |= {name: b"".join(part[name] for part in parts)[:COUNT] for name in divided}
    return signs


def first_signs(values: Tensor) -> bytes:
    """Whether each of the first values of a parameter is negative."""
    return torch.signbit(values.detach().flatten()[:COUNT]).cpu().numpy().tobytes()
