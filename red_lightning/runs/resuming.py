"""Resume an unfinished run: the checkpoint, the same settings, and continued logs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from red_lightning.adapters.extensions import import_class
from red_lightning.callbacks import BestCheckpoint, read_checkpoint
from red_lightning.errors import UsageError
from red_lightning.tasks.checkpoint_identity import RECORD

Way = Literal["last", "auto"]


def way(given: str | None, command: str | None) -> Way | None:
    """How ``--ckpt_path`` asks to continue an unfinished run, if it does.

    Args:
        given: Its value.
        command: The command, of which ``fit`` alone can be continued.

    Raises:
        UsageError: It is another one.
    """
    if given not in ("last", "auto"):
        return None
    if command != "fit":
        raise UsageError(f"--ckpt_path {given} continues a fit; give {command} best, or the path of a checkpoint")
    return cast(Way, given)


def checkpoint_of(run: Path, way: Way, folder: Path) -> tuple[Path | None, str, dict[str, Any] | None]:
    """The checkpoint from which a run goes on, and what a user is told about it.

    The third value is the state of the callback that chooses the best checkpoint.

    Args:
        run: The run's folder.
        way: ``last`` for ``last.ckpt``; ``auto`` for the newest checkpoint that is whole.
        folder: The folder of its checkpoints.

    Returns:
        No path if the run has to start from the beginning.

    Raises:
        UsageError: ``last.ckpt`` is damaged (``last`` only).
    """
    files = [folder / "last.ckpt"]
    if way == "auto":
        files = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    damaged = ""
    for file in filter(Path.exists, files):
        try:
            content = read_checkpoint(file)
        except UsageError:
            if way == "last":
                raise
            damaged += f"{file.name} is damaged; "
        else:
            whole_step = content.get(RECORD, {}).get("whole_step", True)
            if way == "auto" and not whole_step:  # best.ckpt, if a validation came amid an accumulation
                continue
            began = content.get("callbacks", {}).get(BestCheckpoint.__qualname__)
            return file, f"{damaged}continuing from {file.name} of {run.name}", began
    return None, f"{damaged}there is no unfinished run to continue; starting from the beginning", None


def keep_logs(path: Path) -> None:
    """Set the metrics of an interrupted run aside: its logger would begin by deleting them."""
    for file in path.glob("logs/**/metrics.csv"):
        numbers = range(1, 1000)
        file.rename(next(name for n in numbers if not (name := file.with_name(f"metrics-part{n}.csv")).exists()))


def refuse_changes(path: Path, text: str, reread: Callable[[str], str]) -> None:
    """Refuse to continue a run with another task, other data or another seed: its records would lie.

    Args:
        path: The run's folder.
        text: The settings now, as config.yaml holds them.
        reread: Completes an older config.yaml: adds the defaults of options that are newer than it.

    Raises:
        UsageError: Names the first setting that differs.
    """
    if not (path / "config.yaml").is_file():
        return
    begun = (path / "config.yaml").read_text(encoding="utf-8")
    if _settings(yaml.safe_load(begun)).get("model.method.replicas", 1) != 1:  # 0.1.0 wrote 1 for an ordinary run
        raise UsageError(
            f"'{path}' is the folder of replicas, which were removed; continue each of its runs by itself: "
            f"fit --config {path}/NAME/config.yaml --run.name NAME --ckpt_path auto"
        )
    before, now = (_settings(yaml.safe_load(settings)) for settings in (reread(begun), text))
    for key in {*before, *now} - {"data.num_workers", "data.changed_rows"}:
        if not _same(key, before.get(key), now.get(key)):
            raise UsageError(
                f"'{path}' was begun with {key} {before.get(key)}, but it is now {now.get(key)}; "
                "continue with the same settings, or start a new run"
            )


def other_data(run: Path, text: str) -> str | None:
    """Return the first setting by which a run was trained on other data or for another task; None if there is none.

    Args:
        run: The run's folder.
        text: The settings now, as config.yaml holds them. Files that they leave open fit any.
    """
    if not (run / "config.yaml").is_file():
        return None
    before, now = (_settings(yaml.safe_load(t)) for t in ((run / "config.yaml").read_text(encoding="utf-8"), text))
    for key in WHOSE_DATA:
        theirs, ours = before.get(key), now.get(key)
        if None not in (theirs, ours) and not _same(key, theirs, ours):
            return f"{key} {theirs}, not {ours}"
    return None


WHOSE_DATA = ("model.class_path", "data.class_path", "data.train_file", "data.path", "data.task", "data.revision")
"""The settings that say what a run was trained on and for."""


def _same(key: str, before: Any, now: Any) -> bool:
    """Whether two values of a setting mean the same; two class paths do if they lead to one class."""
    if before == now or not key.endswith("class_path") or None in (before, now):
        return bool(before == now)
    first, second = (import_class(path, object, "class", f"{key} of config.yaml") for path in (before, now))
    return first is second


def _settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings of task, data and seed by their full name."""
    if not isinstance(config, dict):
        return {prefix: config}
    keys = config if prefix else ("seed_everything", "model", "data")
    flat: dict[str, Any] = {}
    for key in keys:
        flat.update(_settings(config.get(key), f"{prefix}.{key}".lstrip(".").replace(".init_args", "")))
    return flat
