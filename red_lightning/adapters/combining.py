"""Combine adapters of one backbone, on their files alone. :mod:`red_lightning.editing.affine` has the equations."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from red_lightning.adapters.edited import find_edits
from red_lightning.adapters.file_format import HEAD, read_edits, save_edits
from red_lightning.adapters.record_checks import method_class
from red_lightning.atomic_files import digest_of, new_folder, require_new
from red_lightning.backbones.quantization import backbone_of
from red_lightning.editing.affine import How, combine_vectors
from red_lightning.errors import UsageError
from red_lightning.methods import Method, that_combine
from red_lightning.methods.options import defaults_of

OF_ONE = ("format", "scores", "unreadable", "seed", "imported", "libraries")
"""What a record says of one run alone."""


class _Source(NamedTuple):
    """Edits that are read.

    Attributes:
        name: What they are called.
        commit: That of their hub repository; None for a folder.
        tensors: What was learned, but for a head.
        head: The head's tensors.
        record: The contents of ``edits.json``.
        digest: The SHA-256 of their file of tensors.
        kind: The class of their method.
    """

    name: str
    commit: str | None
    tensors: dict[str, Tensor]
    head: dict[str, Tensor]
    record: dict[str, Any]
    digest: str
    kind: type[Method]

    @property
    def method(self) -> str:
        return self.record["method"]["name"]


def combine_edits(
    edits: Sequence[str | Path],
    output: str | Path,
    weights: Sequence[float] | None = None,
    how: How = "sum",
    revision: str | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Write edits that are made of others of the same backbone.

    For example, halfway between two, and the second's after the first's::

        combine_edits(["runs/thai", "runs/pub"], "both")
        combine_edits(["runs/style", "runs/task"], "task_in_style", how="stack")

    ``edits.json`` keeps what all the records agree on; under ``combined`` it has ``how``, and for each of the
    ``sources`` where it was (``edits``, and of a hub repository its ``commit``), its ``weight``, its ``record`` and the
    ``sha256`` of its tensors.

    Args:
        edits: Runs' folders, ``edits`` folders or hub repositories of edits: of one backbone and one method. Edits of
            a method that ``unites`` (RED) may have different sites, layers and vectors; the result has all of them, and
            an edit is the identity where it has none.
        output: The folder to write, which is new or empty.
        weights: One number for each of the edits, for ``sum``; None for their mean. They must sum to 1 where no
            identity can fill up the rest: for classification heads (whose labels must be the same), and where the
            backbone's own weights were trained.
        how: ``sum``, or ``stack`` in the order of ``edits``.
        revision: Branch, tag or commit of those that are hub repositories.
        trust: Packages whose own methods may be imported: their code runs.

    Returns:
        The folder.

    Raises:
        UsageError: The edits cannot be combined, or the folder holds something or cannot be written.
    """
    shares = _shares(len(edits), weights, how)
    folder = Path(output).expanduser()
    require_new(folder, "the combined edits")
    sources = [_read(name, revision, trust) for name in edits]
    _require_one_kind(sources)
    first = sources[0].record
    head = _averaged("a classification head", [source.head for source in sources], shares, how)
    if sources[0].kind.combines == "affine":
        learned = combine_vectors([(source.name, source.tensors) for source in sources], shares, how)
    else:
        learned = _averaged("the backbone's own weights", [source.tensors for source in sources], shares, how)
    method = first["method"]
    if sources[0].kind.unites:
        defaults = defaults_of(sources[0].kind)
        options = [{**defaults, **source.record["method"]} for source in sources]
        method = sources[0].kind.unite(options, [name.rpartition(".")[0] for name in learned])
    record: dict[str, Any] = {
        **_agreed([source.record for source in sources]),
        **{name: first[name] for name in ("backbone", "commit", "head") if name in first},
        "method": method,
        "trainable_parameters": sum(tensor.numel() for tensor in learned.values()),
        "combined": {
            "how": how,
            "sources": [
                {
                    "edits": source.name,
                    "commit": source.commit,
                    "weight": share,
                    "sha256": source.digest,
                    "record": source.record,
                }
                for source, share in zip(sources, shares, strict=True)
            ],
        },
    }
    tensors = {**learned, **head}
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise UsageError(f"'{broken[0]}' of the combined edits would not be finite; give smaller --weights")
    with new_folder(folder, "the combined edits") as part:
        save_edits(part, tensors, record)
    return folder


def differences(combined: Mapping[str, Any]) -> list[str]:
    """In what the records of combined edits differ that decides how the model writes: none of it was kept.

    Args:
        combined: The contents of the combined ``edits.json``.
    """
    records = [source["record"] for source in combined["combined"]["sources"]]
    said = {
        "task": [record.get("task") for record in records],
        "template": [(record.get("data") or {}).get("template") for record in records],
        "decoding": [record.get("decoding") for record in records],
    }
    return [name for name, values in said.items() if any(value != values[0] for value in values)]


def _shares(count: int, weights: Sequence[float] | None, how: How) -> list[float]:
    """The weight of each of the edits."""
    if not count:
        raise UsageError("no edits to combine are given: name runs' folders, edits folders or hub repositories")
    if how == "stack" and weights is not None:
        raise UsageError("stacked edits have no weights; leave --weights out, or add the edits up with --how sum")
    if weights is None:
        return [1.0 if how == "stack" else 1 / count] * count
    if len(weights) != count:
        raise UsageError(f"there are {count} edits, but {len(weights)} weights; give one for each of the edits")
    if not all(map(math.isfinite, weights)):
        raise UsageError(f"the weights must be finite numbers, and are {', '.join(map(str, weights))}")
    return [float(weight) for weight in weights]


def _read(name: str | Path, revision: str | None, trust: Sequence[str]) -> _Source:
    folder = find_edits(name, revision)
    tensors, record = read_edits(folder)
    head = {key: tensors.pop(key) for key in list(tensors) if key.startswith(HEAD)}
    digest = digest_of(folder / "edits.safetensors")
    commit = None if Path(name).expanduser().is_dir() else folder.name  # the hub's cache calls it so
    return _Source(str(name), commit, tensors, head, record, digest, method_class(record, folder, trust))


def _require_one_kind(sources: Sequence[_Source]) -> None:
    """Refuse edits that do not belong together."""
    first, *others = sources
    if first.kind.combines is None:
        raise UsageError(
            f"edits of {first.method} cannot be combined: the model is not linear in what it learns (LoRA's is a "
            f"product of two factors); those of {', '.join(that_combine('affine', 'mean'))} can"
        )
    for other in others:
        both = f"'{first.name}' and '{other.name}'"
        if other.record["fingerprint"] != first.record["fingerprint"]:
            raise UsageError(
                f"{both} belong to different backbones, {backbone_of(first.record)} and {backbone_of(other.record)}: "
                "other weights, or only one of them has its language-model head"
            )
        if other.method != first.method or other.kind is not first.kind:
            raise UsageError(f"{both} were learned with {first.method} and {other.method}; combine edits of one method")
        if not first.kind.unites and _shapes(other.tensors) != _shapes(first.tensors):
            raise UsageError(f"{both} have other parameters; edits of {first.method} can be combined if they are alike")
        labels = [source.record.get("labels") for source in (first, other)]
        if (first.head or other.head) and labels[0] != labels[1]:
            raise UsageError(f"the classification heads of {both} have different labels: {labels[0]} and {labels[1]}")
        poolings = [(source.record.get("head") or {}).get("pooling") for source in (first, other)]
        if poolings[0] != poolings[1] or _shapes(other.head) != _shapes(first.head):
            raise UsageError(f"the classification heads of {both} are not alike, or only one of them has a head")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _averaged(what: str, parts: Sequence[Mapping[str, Tensor]], shares: Sequence[float], how: How) -> dict[str, Tensor]:
    """The weighted mean of tensors that have no identity, computed in float64 and rounded once."""
    if parts[0] and (how == "stack" or not math.isclose(math.fsum(shares), 1, abs_tol=1e-6)):
        raise UsageError(f"of {what} only a mean has a meaning: use --how sum with --weights that sum to 1")
    return {
        name: sum(share * part[name].double() for share, part in zip(shares, parts, strict=True)).to(tensor.dtype)  # type: ignore[union-attr]
        for name, tensor in parts[0].items()
    }


def _agreed(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all the records say alike, but for that which concerns a single run; of the data, each part by itself."""
    first, *others = records
    agreed = {
        name: value
        for name, value in first.items()
        if name not in OF_ONE and all(other.get(name) == value for other in others)
    }
    data = [record["data"] for record in records if isinstance(record.get("data"), dict)]
    if "data" not in agreed and len(data) == len(records):
        agreed["data"] = _agreed(data)
    return agreed
