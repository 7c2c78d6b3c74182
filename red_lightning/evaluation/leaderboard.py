"""The six benchmarks of the Open LLM Leaderboard (paper, Table 17), and any other task of lm-eval."""

import logging
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from red_lightning import hub
from red_lightning.errors import UsageError, first_line, require_range


class UnavailableError(UsageError):
    """What scoring takes is not on this machine: lm-eval, or the questions.

    Args:
        reason: Which of them, and why.
        way: What to do about it, as an imperative.
    """

    def __init__(self, reason: str, way: str) -> None:
        super().__init__(f"{reason}; {way}")
        self.reason, self.way = reason, way


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the leaderboard.

    Attributes:
        title: Its column in Table 18.
        tasks: lm-eval's tasks or groups; a score is the mean over all their questions.
        folder: Where these are described, below lm-eval's own ``tasks``: to index all of them takes half a minute.
        num_fewshot: How many solved examples stand before each question.
        metric: lm-eval's name of the paper's metric, and of the filter of answers.
        measure: What Table 17 calls it.
    """

    title: str
    tasks: tuple[str, ...]
    folder: str
    num_fewshot: int
    metric: str
    measure: str


LEADERBOARD = {
    "arc": Benchmark("ARC", ("arc_challenge", "arc_easy"), "arc", 25, "acc_norm,none", "acc_norm"),
    "truthfulqa": Benchmark("TruthfulQA", ("truthfulqa_mc2",), "truthfulqa", 0, "acc,none", "mc2"),
    "winogrande": Benchmark("Winogrande", ("winogrande",), "winogrande", 5, "acc,none", "acc"),
    "gsm8k": Benchmark("GSM8k", ("gsm8k",), "gsm8k", 5, "exact_match,strict-match", "acc"),
    "hellaswag": Benchmark("HellaSwag", ("hellaswag",), "hellaswag", 10, "acc_norm,none", "acc_norm"),
    "mmlu": Benchmark("MMLU", ("mmlu",), "mmlu/default", 5, "acc,none", "acc"),
}
"""Name -> benchmark, in the order of Table 18. Its ARC is Challenge and Easy together: 72 is what those make."""


def require_harness() -> None:
    """Refuse to go on without lm-eval, and keep it from logging each of its settings.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        missing = getattr(error, "name", None) in (None, "lm_eval")
        why = "is not installed" if missing else f"cannot be imported ({first_line(error)})"
        raise UnavailableError(f"lm-eval {why}", "install it with pip install 'red-lightning[evaluation]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def load_tasks(name: str, num_fewshot: int | None = None, include_path: str | Path | None = None) -> dict[str, Any]:
    """Load a task with its questions.

    Args:
        name: One of :data:`LEADERBOARD`, or a task, group or tag of lm-eval.
        num_fewshot: Solved examples before each question; None for the paper's number or the task's own. A task that
            says 0 keeps it, as in lm-eval.
        include_path: A folder of task descriptions of the user's own, in lm-eval's format; they come first.

    Returns:
        What ``lm_eval.evaluate`` takes: the tasks by name, and the groups that they form.

    Raises:
        UnavailableError: lm-eval is not installed, or the questions cannot be read.
        UsageError: There is no such task.
    """
    require_harness()
    require_range("num_fewshot", 0 if num_fewshot is None else num_fewshot, 0)
    if include_path is not None and not Path(include_path).is_dir():
        raise UsageError(f"the folder '{include_path}' of include_path does not exist")
    manager = _manager(name, include_path)
    benchmark = LEADERBOARD.get(name)
    if benchmark is None and name not in manager.task_index:
        raise _unknown(name, manager.all_tasks)
    wanted = list(benchmark.tasks) if benchmark else [name]
    shots = benchmark.num_fewshot if benchmark and num_fewshot is None else num_fewshot
    loaded = _read(manager, name, wanted)
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=shots or 0)
    return loaded


def _manager(name: str, include_path: str | Path | None) -> Any:
    """What knows the task, without an index of all 14,000 where that can be avoided."""
    import lm_eval.tasks

    own = [Path(include_path)] if include_path else []
    if name in LEADERBOARD:
        folder = Path(lm_eval.tasks.__file__).parent / LEADERBOARD[name].folder
        return lm_eval.tasks.TaskManager(include_path=[folder, *own], include_defaults=False)
    manager = lm_eval.tasks.TaskManager(include_path=own, include_defaults=False)
    return manager if name in manager.all_subtasks else lm_eval.tasks.TaskManager(include_path=own)


def _read(manager: Any, name: str, wanted: list[str]) -> dict[str, Any]:
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        with hub.cut_off(hub.offline()):
            return manager.load(wanted)
    except Exception as error:  # of datasets, of the hub's client, or of the task's own code
        raise UnavailableError(
            f"the questions of '{name}' cannot be read: {first_line(error).rstrip('.')}",
            "check that the hub can be reached and serves them, or copy HF_HOME from a machine that has read them",
        ) from error


def _unknown(name: str, known: list[str]) -> UsageError:
    near = get_close_matches(name, [*LEADERBOARD, *known], n=4, cutoff=0.6)
    meant = f"did you mean {' or '.join(repr(one) for one in dict.fromkeys(near))}? " if near else ""
    return UsageError(
        f"there is no task '{name}': {meant}known: {', '.join(LEADERBOARD)}, and what `lm-eval ls tasks` lists"
    )
