"""Check whether a task accepts a data module."""

from typing import Any

from red_lightning.errors import UsageError


def require_readable(task: Any, data: Any) -> None:
    """Refuse data of another kind than a task reads.

    Args:
        task: The task.
        data: Its data module, or None.

    Raises:
        UsageError: Names the data modules that would do.
    """
    if data is None or isinstance(data, task.data_class):
        return
    readable = getattr(task.data_class, "examples", f"subclasses of {task.data_class.__name__}")
    raise UsageError(
        f"the task {type(task).__name__} cannot read the data module {type(data).__name__}; it reads {readable}"
    )
