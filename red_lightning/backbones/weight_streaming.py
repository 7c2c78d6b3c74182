"""Read a backbone's weights one at a time, into a model on the meta device."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from red_lightning.backbones.fingerprint import COUNT, fingerprint, fingerprint_of, first_signs
from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.backbones.quantization import in_fewer_bits
from red_lightning.backbones.weight_files import Place, find_places, names_in_files


@dataclass(frozen=True)
class Weights:
    """The pretrained weights of a backbone.

    Attributes:
        read: Gives a tensor by its name in the backbone, in the dtype that it is stored in.
        fingerprint: The backbone's :func:`~red_lightning.backbones.fingerprint.fingerprint`.
    """

    read: Callable[[str], Tensor]
    fingerprint: str


def hollow(backbone: nn.Module) -> nn.Module:
    """Give each parameter of a backbone on the meta device a float32 tensor on the CPU that shares one zero.

    A method can be applied to such a backbone, and draws its first values there; tied parameters stay tied.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter not in made:
                made[parameter] = nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=False)
            setattr(module, name, made[parameter])
    return backbone


def _aliases(backbone: nn.Module) -> dict[str, str]:
    """The names of tied parameters but the first of each, and that first name."""
    first: dict[Tensor, str] = {}
    return {
        name: first[parameter]
        for name, parameter in backbone.named_parameters(remove_duplicate=False)
        if first.setdefault(parameter, name) != name
    }


def _untie(backbone: nn.Module, names: Iterable[str]) -> None:
    """Give parameters of a :func:`hollow` backbone that are tied to others tensors of their own."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        shape = backbone.get_parameter(name).shape
        own = nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False)
        setattr(backbone.get_submodule(owner), leaf, own)


def stored_tensors(backbone: nn.Module) -> dict[str, Tensor]:
    """The tensors that a checkpoint of a backbone holds, by name; of tied ones the first."""
    first: dict[Tensor, str] = {}
    for name, tensor in backbone.state_dict(keep_vars=True).items():
        first.setdefault(tensor, name)
    return {name: tensor for tensor, name in first.items()}


def open_weights(
    source: Source, options: BackboneOptions, load: Callable[[], nn.Module], backbone: nn.Module, wanted: str
) -> Weights:
    """Find the weights of a backbone.

    Parameters that the architecture ties but the files hold apart (FLAN-T5, mT5: the head and the embeddings) are
    untied, as transformers does when it loads the backbone.

    Each is read from its file when it is asked for. Where the files are not safetensors, where their tensors do not
    fit the model name by name, and where the backbone is quantized, it is loaded whole (quantized: in its few bits),
    and a quantized weight is unpacked when it is asked for.

    Args:
        source: Where the backbone is.
        options: How it is loaded.
        load: Loads it whole.
        backbone: The same backbone without weights.
        wanted: The fingerprint that it should have, which says whether such parameters were apart.

    Raises:
        UsageError: It cannot be loaded.
    """
    places = None if options.quantization else find_places(source, backbone)
    if places is None:
        loaded = load()
        theirs = dict(loaded.named_parameters(remove_duplicate=False))
        _untie(backbone, [n for n, first in _aliases(backbone).items() if theirs.get(n) is not theirs.get(first)])
        # bitsandbytes stores GPT-2's Conv1D as a linear, which is its transpose
        turned = {name for name, module in backbone.named_modules() if isinstance(module, Conv1D)}
        return Weights(lambda name: _unpacked(loaded, name, turned), fingerprint(loaded))
    weights = _in_files(backbone, places)
    if weights.fingerprint != wanted and (apart := sorted(set(_aliases(backbone)) & set(names_in_files(source)))):
        _untie(backbone, apart)
        places = find_places(source, backbone)
        return weights if places is None else _in_files(backbone, places)
    return weights


def _in_files(backbone: nn.Module, places: Mapping[str, Place]) -> Weights:
    parameters = dict(backbone.named_parameters())
    signs = {name: first_signs(_read(*places[name], first=True)) for name in parameters}
    return Weights(lambda name: _read(*places[name]), fingerprint_of(parameters, signs))


def _read(path: Path, key: str, first: bool = False) -> Tensor:
    """A tensor, or its first rows. A file is open for one tensor only: what is mapped counts as memory."""
    with safe_open(path, "pt") as file:
        part = file.get_slice(key)
        return part[:COUNT] if first and part.get_shape() else file.get_tensor(key)


def _unpacked(loaded: nn.Module, name: str, turned: Container[str]) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    tensor: Any = getattr(loaded.get_submodule(owner), leaf)
    if not in_fewer_bits(tensor):
        return tensor.detach()
    if tensor.is_floating_point():
        return tensor.dequantize()
    from bitsandbytes import functional

    if hasattr(tensor, "quant_state"):
        values = functional.dequantize_4bit(tensor.data, tensor.quant_state)
    else:
        values = functional.int8_vectorwise_dequant(tensor.data, tensor.SCB)
    return values.T if owner in turned else values
