"""Attach an adapter to its backbone."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from red_lightning.adapters.extensions import own_path
from red_lightning.adapters.file_format import HEAD, read_edits, site_name
from red_lightning.adapters.record_checks import method_of, trained_part
from red_lightning.editing.surgery import require_unedited
from red_lightning.errors import UsageError, first_line
from red_lightning.methods import Method


def apply_edits(backbone: nn.Module, folder: str | Path, trust: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Attach the edits of a run to the backbone they were learned on; ``load_head`` has its head.

    Args:
        backbone: The pretrained model, unedited. A classifier's edits fit the hidden layers: ``AutoModel``, or any
            model that holds them as its ``base_model``.
        folder: The ``edits/`` folder of a run.
        trust: Packages whose own methods may be imported, such as ``["my_package"]``: their code runs.

    Returns:
        The edited parameters, by their name in the backbone.

    Raises:
        UsageError: The files cannot be read, belong to another backbone, or need a method that nobody trusts.
    """
    return place_edits(backbone, *read_edits(folder), folder, trust)


def place_edits(
    backbone: nn.Module,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    folder: str | Path,
    trust: Sequence[str] = (),
) -> dict[str, nn.Parameter]:
    """What :func:`apply_edits` does, with edits that :func:`read_edits` has read from ``folder``."""
    require_unedited(backbone)
    _, parameters = attach_edits(trained_part(backbone, record, folder), tensors, record, folder, trust)
    for key, parameter in parameters.items():
        parameter.data.copy_(tensors[site_name(key)])
    return parameters


def attach_edits(
    backbone: nn.Module,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    folder: str | Path,
    trust: Sequence[str] = (),
) -> tuple[Method, dict[str, nn.Parameter]]:
    """Attach edits whose parameters still hold their first values.

    Args:
        backbone: The pretrained model, unedited.
        tensors: What was learned, by site name; of a head, nothing is attached.
        record: The contents of ``edits.json``.
        folder: Where both are from, for complaints.
        trust: Packages whose own methods may be imported.

    Returns:
        The method, and the edited parameters by their name in the backbone: each has a tensor of its shape.

    Raises:
        UsageError: The method cannot be applied, or does not fit the tensors.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}
    method = method_of(record, folder, trust)
    stored = {name: tensor.shape for name, tensor in tensors.items()}
    for name in method.sizes:  # before tensors of a damaged file's size take all memory
        size = record["method"].get(name)
        if size is not None and not any(size in shape for shape in stored.values()):
            raise UsageError(
                f"the edits in '{folder}' do not fit their method: no tensor has its {name} of {size} as a size"
            )
    try:
        parameters = method.apply(backbone)
    except UsageError:
        raise
    except Exception as error:  # options of a wrong type fail anywhere
        _detach(method, backbone)
        reason = f"are damaged: their method has odd options ({first_line(error)})"
        if path := own_path(record, "method"):
            reason = f"cannot be attached: '{path}' fails with {type(error).__name__}: {first_line(error)}"
        raise UsageError(f"the edits in '{folder}' {reason}") from error
    wanted = {site_name(key): parameter.shape for key, parameter in parameters.items()}
    if unfit := {name for name in {*wanted, *stored} if wanted.get(name) != stored.get(name)}:
        _detach(method, backbone)
        name = min(unfit)
        if name in stored and name in wanted:
            reason = f"has the shape {tuple(stored[name])}, but must have {tuple(wanted[name])}"
        else:
            reason = "is missing" if name in wanted else "is no parameter of it"
        raise UsageError(f"the edits in '{folder}' do not fit their method: '{name}' {reason}")
    return method, parameters


def _detach(method: Method, backbone: nn.Module) -> None:
    with suppress(Exception):  # a method that trains the backbone's own weights has not changed them yet
        method.detach(backbone)
