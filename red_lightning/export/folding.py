"""Merge an adapter into a backbone's weights, one module at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from red_lightning.adapters.attaching import attach_edits
from red_lightning.adapters.edited import load_backbone
from red_lightning.adapters.extensions import import_path, is_own
from red_lightning.adapters.file_format import site_name
from red_lightning.adapters.record_checks import method_class, method_of
from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.backbones.quantization import backbone_of
from red_lightning.backbones.weight_streaming import Weights, hollow, open_weights, stored_tensors
from red_lightning.editing import surgery
from red_lightning.errors import UsageError, first_line
from red_lightning.methods import Method, RepresentationEditor
from red_lightning.methods.peft_layers import adapted

INSTEAD = "; export the edits instead (--format edits)"


@dataclass(frozen=True)
class Folding:
    """A backbone without memory for its weights, edits attached to it, and where the weights are.

    Attributes:
        backbone: The edited model.
        method: What the edits were learned with.
        weights: The pretrained weights.
        stored: Every tensor of a checkpoint of the unedited backbone, by name; only the shapes count.
        edited: The modules that are folded, by the name of the linear or norm whose output they edit.
        learned: Weights of the backbone that were themselves trained, by name.
    """

    backbone: nn.Module
    method: Method
    weights: Weights
    stored: Mapping[str, Tensor]
    edited: Mapping[str, nn.Module]
    learned: Mapping[str, Tensor]

    def added(self) -> dict[str, Tensor]:
        """The biases that folding gives to linears that had none, by name; only the shapes count."""
        biases = {}
        for name, module in self.edited.items():
            editor = getattr(module, surgery.EDITOR, None)
            if isinstance(editor, RepresentationEditor) and getattr(module, "bias", None) is None:
                biases[f"{name}.bias"] = editor.vectors()[1]
        return {name: bias for name, bias in biases.items() if bias is not None}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The folded backbone's tensors with their names: float32 where something was folded, else as they are stored.

        An edited module gets its weights, is folded by itself, and loses them.
        """
        modules: dict[str, list[str]] = {}
        known = {*self.stored, *self.added()}
        for name in self.stored:
            modules.setdefault(name.rpartition(".")[0], []).append(name)
        for owner, names in modules.items():
            if owner not in self.edited:
                yield from ((n, self.learned[n] if n in self.learned else self.weights.read(n)) for n in names)
                continue
            linear: Any = getattr(self.edited[owner], "base_layer", self.edited[owner])
            without = _own(linear)
            for name in names:
                values = self.weights.read(name).to(torch.float32, copy=True)
                setattr(linear, name.rpartition(".")[2], nn.Parameter(values, requires_grad=False))
            alone = nn.ModuleDict({"site": self.edited[owner]})
            self.method.fold(alone)
            folded = {f"{owner}.{leaf}": p.data for leaf, p in alone["site"].named_parameters(recurse=False)}
            if new := [name for name in folded if name not in known]:
                raise UsageError(f"{type(self.method).__name__} merges into '{new[0]}', which does not exist{INSTEAD}")
            yield from folded.items()
            for leaf in _own(linear):
                setattr(linear, leaf, without.get(leaf))


def open_folding(
    folder: Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    source: Source,
    options: BackboneOptions,
    trust: Sequence[str] = (),
) -> Folding:
    """Attach edits to a backbone without weights.

    Args:
        folder: Where the edits are from, for complaints.
        tensors: What was learned, by site name.
        record: The contents of ``edits.json``.
        source: Where the backbone is.
        options: How it is loaded.
        trust: Packages whose own methods may be imported: their code runs.

    Raises:
        UsageError: The edits belong to another backbone, do not fit their method, or cannot be folded exactly.
    """
    if not (kind := method_class(record, folder, trust)).folds:
        raise UsageError(f"{kind.__name__} cannot be merged into the backbone's weights{INSTEAD}")
    backbone = hollow(load_backbone(source, options, record, meta=True))
    weights = open_weights(
        source, options, lambda: load_backbone(source, options, record), backbone, record["fingerprint"]
    )
    if weights.fingerprint != record["fingerprint"]:
        raise UsageError(f"the edits in '{folder}' belong to another backbone: {backbone_of(record)}")
    stored, tied = stored_tensors(backbone), _tied(backbone)
    applied, parameters = attach_edits(backbone, tensors, _densified(record, folder, trust), folder, trust)
    for name, parameter in parameters.items():
        parameter.data = tensors[site_name(name)].float()
    learned = {name: parameter.data for name, parameter in parameters.items() if name in stored}
    edited = dict([*surgery.edited_modules(backbone), *adapted(backbone)])
    _require_foldable(applied, edited, tied)
    if apart := [name for name in parameters if name not in learned and not _is_inside(name, edited)]:
        raise UsageError(f"{type(applied).__name__} edits nothing at '{apart[0]}' that can be merged{INSTEAD}")
    return Folding(backbone, applied, weights, stored, edited, learned)


def _densified(record: Mapping[str, Any], folder: Path, trust: Sequence[str]) -> Mapping[str, Any]:
    """Return the record with the method that computes the same on dequantized weights (:meth:`Method.dense`)."""
    method = method_of(record, folder, trust)
    dense = method.dense()
    if dense is method:
        return record
    classes = {part: path for part, path in (record.get("classes") or {}).items() if part != "method"}
    if is_own(type(dense)):
        classes["method"] = import_path(type(dense))
    return {**record, "method": dense.describe(), "classes": classes}


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters, by name."""
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def _is_inside(parameter: str, modules: Mapping[str, nn.Module]) -> bool:
    return any(parameter.startswith(f"{name}.") for name in modules)


def _tied(backbone: nn.Module) -> set[str]:
    """The names of tensors that have several names."""
    names: dict[Tensor, list[str]] = {}
    for name, tensor in backbone.state_dict(keep_vars=True).items():
        names.setdefault(tensor, []).append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}


def _require_foldable(method: Method, edited: Mapping[str, nn.Module], tied: set[str]) -> None:
    try:
        method.fold(nn.Module())  # refuses, or fails, before anything is written
        for module in edited.values():
            surgery.fold(getattr(module, "base_layer", module), None, None)
    except UsageError as error:
        raise UsageError(f"{str(error).split(';')[0]}{INSTEAD}") from error
    except Exception as error:  # of a user's own method
        said = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(
            f"{type(method).__name__} cannot be merged, since its fold fails with {said}{INSTEAD}"
        ) from error
    if shared := sorted(name for name in edited if f"{name}.weight" in tied):
        raise UsageError(
            f"the weight of '{shared[0]}' is another module's too, so that no edit of one merges into it{INSTEAD}"
        )
