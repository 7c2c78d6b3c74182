"""Score a loaded model on a loaded task."""

import io
import random
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stderr
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from red_lightning.errors import UsageError, enough_memory, first_line
from red_lightning.evaluation.leaderboard import LEADERBOARD

SEED = 1234
"""lm-eval's own: it draws the solved examples, and answers where a task samples them."""

ABOUT = ("name", "alias", "sample_len")
"""What lm-eval writes among a task's metrics."""


def score_tasks(
    model: Any,
    name: str,
    loaded: Mapping[str, Any],
    limit: int | None = None,
    errors: bool = True,
    chat: bool = False,
    system: str | None = None,
) -> Any:
    """Ask a model the questions of a task.

    Neither the numbers that are drawn afterwards nor the model change. Where several processes share the model's
    weights, all of them must call this at once.

    Args:
        model: A :class:`red_lightning.evaluation.language_model.LanguageModel`.
        name: What was loaded.
        loaded: The result of :func:`red_lightning.evaluation.leaderboard.load_tasks`.
        limit: Take so many questions of each of its tasks; None takes all.
        errors: Also estimate the scores' standard errors.
        chat: Ask in the model's template for conversations, solved examples as earlier turns.
        system: What precedes each question; a system message if ``chat``.

    Returns:
        ``metric`` and ``score``: that of the leaderboard, or the task's first one, or None if there are several tasks
        that form no group; ``questions``, their number; ``shortened``, the number of prompts that were too long;
        ``num_fewshot`` and ``versions`` by task; and ``metrics``, all of them by task and group.

    Raises:
        UsageError: The task cannot be put to this model, or a batch does not fit in its memory.
    """
    import lm_eval

    before = model.shortened
    bars = nullcontext() if model.progress else redirect_stderr(io.StringIO())  # not all of them can be turned off
    with isolate_rng(), bars:
        random.seed(SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(SEED)
        try:
            with enough_memory(f"'{name}' is scored", "lower the batch_size"):
                found: Any = lm_eval.evaluate(
                    model,
                    dict(loaded),
                    limit=limit,
                    bootstrap_iters=1000 if errors else 0,
                    log_samples=False,
                    system_instruction=system,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                )
        except (ValueError, AssertionError) as error:
            raise UsageError(f"'{name}' cannot be scored with this model: {first_line(error)}") from error
    metrics = {task: _numbers(values) for task, values in {**found["results"], **found.get("groups", {})}.items()}
    questions = {task: found["n-samples"][task]["effective"] for task in loaded["tasks"]}
    metric = _main_metric(name, metrics)
    return {
        "metric": metric,
        "score": None if metric is None else _score(name, metric, metrics, questions),
        "questions": sum(questions.values()),
        "shortened": model.shortened - before,
        "num_fewshot": {task: found["n-shot"][task] for task in questions},
        "versions": found["versions"],
        "metrics": metrics,
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items() if key not in ABOUT and isinstance(value, (int, float))}


def _main_metric(name: str, metrics: Mapping[str, Mapping[str, float]]) -> str | None:
    if name in LEADERBOARD:
        return LEADERBOARD[name].metric
    return next(iter(metrics.get(name, ())), None)


def _score(name: str, metric: str, metrics: Mapping[str, Mapping[str, float]], questions: Mapping[str, int]) -> float:
    """The mean over all questions, whichever task they belong to, of a benchmark; else lm-eval's own number."""
    if name not in LEADERBOARD:
        return metrics[name][metric]
    return sum(metrics[task][metric] * count for task, count in questions.items()) / sum(questions.values())
