"""Read the files of the authors' repository: ``delta_vector.pth`` and ``classifier.pth``.

Their code saves with ``torch.save`` the vectors, of shape (1, width), by ``MODULE.delta_vector.activation_scaling`` and
``..._bias``, and the state dict of its head. Such files are pickles, so they are read with ``weights_only=True``:
tensors and plain containers only, and nothing in them is run.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.adapters.file_format import site_name
from red_lightning.adapters.record_checks import wrong_values
from red_lightning.errors import UsageError
from red_lightning.families import Architecture, architecture_of
from red_lightning.methods.red import RED, RED_PLUS_SITES

VECTOR = re.compile(r"(?P<module>[A-Za-z0-9_.]+)\.delta_vector\.activation_(?P<vector>scaling|bias)")
CLASSIFIER = re.compile(r"(?:.+\.)?(?P<name>(?:dense|out_proj)\.(?:weight|bias))")
AFTER_ATTENTION = "*.attention.output.LayerNorm"
"""RoBERTa's attention after residual and LayerNorm, which the authors' ``res_with_attn`` edits: a pattern, no site."""

LARGEST = 1 << 30
"""How many bytes a file may hold once unpacked; the vectors of 70 billion parameters take 5 million."""


def read_vectors(file: Path) -> dict[str, Tensor]:
    """Read the editing vectors of a ``delta_vector.pth``.

    Args:
        file: It.

    Returns:
        The tensors as they are stored, by ``MODULE.scaling`` and ``MODULE.bias``, where MODULE is what their model
        called the edited module.

    Raises:
        UsageError: It is no such file, asks to run code, or holds something else.
    """
    vectors: dict[str, Tensor] = {}
    for key, value in _read(file).items():
        match = VECTOR.fullmatch(key)
        if ".activation_ln." in key:
            raise UsageError(
                f"'{file}' normalises after each edit (layer_type ln), which is no edit of RED: '{key[:80]}'"
            )
        if match is None:
            raise UsageError(
                f"'{file}' holds {key[:80]!r}, which is no editing vector: those are called "
                "MODULE.delta_vector.activation_scaling and MODULE.delta_vector.activation_bias"
            )
        vectors[f"{match['module']}.{match['vector']}"] = _checked(file, key, value)
    if not vectors:
        raise UsageError(f"'{file}' holds no editing vectors")
    return vectors


def read_classifier(file: Path, width: int) -> dict[str, Tensor]:
    """Read a ``classifier.pth``.

    Args:
        file: It.
        width: Columns of the backbone's hidden states.

    Returns:
        ``dense.weight`` (width, width), ``dense.bias`` (width,), ``out_proj.weight`` (classes, width) and
        ``out_proj.bias`` (classes,), float32.

    Raises:
        UsageError: It is no such file, asks to run code, holds something else, or is of another width.
    """
    weights: dict[str, Tensor] = {}
    for key, value in _read(file).items():
        match = CLASSIFIER.fullmatch(key)
        if match is None or match["name"] in weights:
            raise UsageError(f"'{file}' holds {key[:80]!r}, which is no part of a classifier's dense and out_proj")
        weights[match["name"]] = _checked(file, key, value)
    classes = len(weights.get("out_proj.weight", torch.empty(1)))
    expected = {
        "dense.weight": (width, width),
        "dense.bias": (width,),
        "out_proj.weight": (classes, width),
        "out_proj.bias": (classes,),
    }
    for name, shape in expected.items():
        if name not in weights:
            raise UsageError(f"'{file}' is no whole classifier: it lacks {name}")
        if tuple(weights[name].shape) != shape:
            found = tuple(weights[name].shape)
            raise UsageError(f"'{file}' fits no backbone of width {width}: {name} has the shape {found}, not {shape}")
    return {name: tensor.float() for name, tensor in weights.items()}


def attach_vectors(
    backbone: nn.Module, vectors: Mapping[str, Tensor], file: Path, layers: Sequence[int] | None = None
) -> tuple[RED, dict[str, nn.Parameter]]:
    """Edit a backbone as the authors' model edited it.

    What precedes the block in a module's name (``model.``, ``base_model.``, ``transformer.``) does not count.

    Args:
        backbone: The pretrained model, unedited.
        vectors: What :func:`read_vectors` returned.
        file: What is complained about.
        layers: The layers that were edited; None for all of them.

    Returns:
        The method that edits the same sites, and the parameters that it attached, which hold the vectors.

    Raises:
        UsageError: The vectors are those of another backbone, or some are missing.
    """
    architecture = architecture_of(getattr(backbone, "config", None))
    places, given, found = _places(backbone, architecture), dict[str, Tensor](), set[str]()
    for name, vector in vectors.items():
        module, kind = name.rsplit(".", 1)
        place = _inside(architecture, module)
        if f"{place}.LayerNorm" in places:  # what ends with it is edited there
            place = f"{place}.LayerNorm"
        if place not in places or f"{place}.{kind}" in given:
            wrong = "which it has twice" if place in places else "where that has no site"
            raise UsageError(f"'{file}' is not of {_words(backbone, architecture)}: it edits '{module[:80]}', {wrong}")
        given[f"{place}.{kind}"] = vector
        found |= {*places[place]}
    kinds = {name.rsplit(".", 1)[1] for name in given}
    method = RED(
        [site for site in (*RED_PLUS_SITES, "residual", AFTER_ATTENTION) if site in found],
        "both" if len(kinds) == 2 else "scaling" if "scaling" in kinds else "bias",
        None if layers is None else [*layers],
    )
    parameters = method.apply(backbone)
    wanted = {str(_inside(architecture, site_name(key))): parameter for key, parameter in parameters.items()}
    if unknown := [name for name in given if name not in wanted]:
        raise UsageError(f"'{file}' edits '{unknown[0]}', which is in none of the layers {layers}; leave --layers out")
    if missing := [name for name in wanted if name not in given]:
        raise UsageError(f"'{file}' lacks '{missing[0]}'{_left_out(architecture, given, wanted)}")
    for name, parameter in wanted.items():
        if (shape := tuple(given[name].shape)) not in ((len(parameter),), (1, len(parameter))):
            raise UsageError(
                f"'{file}' is not of {_words(backbone, architecture)}: '{name}' has the shape {shape}, but its site "
                f"is {len(parameter)} wide"
            )
        parameter.data.copy_(given[name].flatten())
    return method, parameters


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        wrong = f"'{file}' is a folder; give the file in it" if file.is_dir() else f"the file '{file}' does not exist"
        raise UsageError(wrong)
    try:
        size = file.stat().st_size
        if zipfile.is_zipfile(file):  # which may be packed
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise UsageError(f"'{file}' holds {size:,} bytes, too many for editing vectors or a classifier")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of pickles that it cannot read, before it says so
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UsageError(
                f"'{file}' is refused: it asks for '{asked[1]}', which tensors do not need and which could run code"
            ) from error
        raise UsageError(f"'{file}' is damaged, or no file of tensors alone that torch.save wrote") from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"'{file}' holds no tensors by name, but a {type(content).__name__}")
    return content


def _checked(file: Path, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.numel() > LARGEST // 4:
        raise UsageError(f"'{file}' is damaged: {key[:80]!r} is no tensor of vectors or weights")
    if reason := wrong_values(value):
        raise UsageError(f"'{file}' cannot be used: '{key[:80]}' {reason}")
    return value.detach()


def _inside(architecture: Architecture, name: str) -> str | None:
    """A module's name from its block on; None if it lies in no block of the family."""
    match = re.search(rf"(?:^|\.)({architecture.block}(?:\..+)?)$", name)
    return match[1] if match else None


def _places(backbone: nn.Module, architecture: Architecture) -> dict[str | None, list[str]]:
    """Which sites lie at a module, by its name from the block on."""
    places: dict[str | None, list[str]] = {}
    for name, _ in backbone.named_modules():
        for site in architecture.sites:
            if architecture.site_pattern(site).fullmatch(name):
                places.setdefault(_inside(architecture, name), []).append(site)
        if fnmatchcase(name, AFTER_ATTENTION):
            places[_inside(architecture, name)] = [AFTER_ATTENTION]
    return places


def _left_out(architecture: Architecture, given: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    """What to do about vectors that are missing: nothing helps, unless all those of some layers are."""
    layers = {name: int(re.match(architecture.block, name)["layer"]) for name in wanted}  # type: ignore[index]
    there = sorted({layers[name] for name in given})
    if all(name in given for name, layer in layers.items() if layer in there):
        every = len({*layers.values()})
        return f": it edits {len(there)} of {every} layers; if no more were edited, give --layers '{there}'"
    return " and is not whole"


def _words(backbone: Any, architecture: Architecture) -> str:
    return f"this {architecture.name} of {backbone.config.num_hidden_layers} layers"
