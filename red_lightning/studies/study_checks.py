"""Validate the parts of a study file."""

from collections.abc import Mapping, Sequence
from typing import Any

from red_lightning.errors import UsageError, nearest


def labels_of(axes: Mapping[str, Mapping[str, Any]], axis: str, labels: Any) -> list[str]:
    """The labels that someone means, all of them known.

    Args:
        axes: Axis -> its labels.
        axis: The axis.
        labels: One or several.

    Raises:
        UsageError: Axis or label is unknown; names the nearest.
    """
    if axis not in axes:
        raise UsageError(f"the study has no axis '{axis}': {nearest(axis, axes)}")
    meant = [str(label) for label in (labels if isinstance(labels, list | tuple) else [labels])]
    for label in meant:
        if label not in axes[axis]:
            raise UsageError(f"the axis {axis} has no '{label}': {nearest(label, axes[axis])}")
    return meant


def mapping(value: Any, place: str) -> dict[str, Any]:
    """A mapping, its keys as text.

    Raises:
        UsageError: It is something else; begins with the place.
    """
    if not isinstance(value, dict):
        raise UsageError(f"{place} must be a mapping, not '{value}'")
    words = {True: "on", False: "off"}  # what YAML 1.1 makes of these words
    return {words[key] if isinstance(key, bool) else str(key): of for key, of in value.items()}


def listed(value: Any, place: str) -> list[Any]:
    """A list.

    Raises:
        UsageError: It is something else; begins with the place.
    """
    if not isinstance(value, list):
        raise UsageError(f"{place} must be a list, such as [{value}], not '{value}'")
    return value


def refuse_unknown(content: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Refuse a part that there is not, and say which was probably meant."""
    for key in content:
        if key not in known:
            raise UsageError(f"{place} has no part '{key}': {nearest(str(key), known)}")
