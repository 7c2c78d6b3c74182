"""Shared by the commands of AlpacaEval and MT-Bench: cost estimate, judgments, results and tables."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from red_lightning.atomic_files import write_whole
from red_lightning.errors import UsageError, cannot_write, require_range
from red_lightning.evaluation.endpoint import Endpoint
from red_lightning.evaluation.judge import BYTES_PER_TOKEN, REPLY, Judge, Request
from red_lightning.jsonl import Record, Records
from red_lightning.runs.display import read_json

RESULTS = "results.json"

Scores = Mapping[str, float | int | None]


def check(endpoint: Endpoint, limit: int | None, dry_run: bool) -> None:
    """Refuse options that would fail only after all answers are generated.

    Raises:
        UsageError: The judge's key or package is missing, the limit is below 1, or a dry run has no judge.
    """
    if dry_run and endpoint.model is None:
        raise UsageError("--dry_run estimates the cost of a judge, but there is none; set --judge.model")
    if limit is not None:
        require_range("limit", limit, 1)
    if endpoint.model is not None and not dry_run:
        with endpoint.client():
            pass
    if dry_run:
        print("the estimate needs all answers: missing ones are generated first", flush=True)


def name_of(model: str | None, answers: Path | None, name: str | None) -> str:
    """Return a model's name for files and tables.

    Raises:
        UsageError: The model and ``--answers`` are both missing or both given.
    """
    if (model is None) == (answers is None):
        raise UsageError("pass either a model or --answers with a file of its answers")
    return file_name(name or (answers.stem if answers else str(model).strip("./~").replace("/", "-")))


def file_name(name: str) -> str:
    """Return a name with the characters of a file name."""
    return re.sub(r"[^\w.-]", "-", name).strip(".") or "model"


def digest(content: Any) -> str:
    """Return a digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def ask(
    endpoint: Endpoint,
    output: Path,
    requests: Sequence[Request],
    readable: Callable[[Record], bool],
    dry_run: bool,
) -> tuple[list[Record | None], dict[str, Any]] | None:
    """Request judgments. Print the estimated cost before and the reported usage after.

    Args:
        endpoint: The judge.
        output: Folder of ``replies.jsonl``, the saved replies.
        requests: All requests; those with a saved judgment are not sent.
        readable: Returns whether a reply holds a verdict.
        dry_run: Stop after the estimate.

    Returns:
        The replies, and the record of the judge for ``results.json``; None after a dry run.
    """
    with Records(output / "replies.jsonl", REPLY) as log:
        judge = Judge(endpoint, log)
        before = judge.estimate(judge.missing(requests))
        print(
            f"{len(requests)} judgments by {endpoint.model} at {endpoint.base_url}, of which {before.calls} are "
            f"missing: about {before.prompt_tokens:,} prompt tokens (one per {BYTES_PER_TOKEN} bytes), at most "
            f"{before.completion_tokens:,} completion tokens" + _cost(before.cost)
        )
        if dry_run:
            return None
        replies = judge.ask(requests, readable)
        whole, after = judge.estimate(requests), judge.usage(requests)
    print(f"the judge used {after} for all {len(requests)} judgments")
    failed = [judge.failed[key] for key in dict.fromkeys(map(judge.key, requests)) if key in judge.failed]
    if failed:
        print(f"{len(failed)} judgments failed, such as: {failed[0]}; rerun the same command to retry them")
    about = {"model": endpoint.model, "base_url": endpoint.base_url, "estimate": asdict(whole)}
    return replies, {**about, "usage": asdict(after), "failed": failed}


def write_file(path: Path, content: str) -> None:
    """Write a file atomically.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise cannot_write(f"'{path}'", error, "free some space and rerun the same command") from error


def results_of(folders: Sequence[Path], suite: str) -> dict[str, Any]:
    """Read the results of other models, by name.

    Raises:
        UsageError: A folder has no results of the suite.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        try:
            result = read_json(folder / RESULTS)
            same = result["suite"] == suite and {"name", "scores"} <= {*result}
        except (OSError, ValueError, LookupError, TypeError):
            same = False
        if not same:
            raise UsageError(
                f"'{folder}' holds no {RESULTS} of {suite}; pass the --output of another model to --compare"
            )
        name = result["name"] if result["name"] not in found else f"{result['name']} ({folder})"
        found[name] = result
    return found


def print_limits(limits: Mapping[str, int | None]) -> None:
    """Report the models that answered only a part of the questions."""
    for name, limit in limits.items():
        if limit is not None:
            print(f"not comparable with the paper or complete runs: {name} has --limit {limit}")


def print_columns(title: str, columns: Mapping[str, Scores], digits: int = 2) -> None:
    """Print a table with a row per measure and a column per model."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for measure in dict.fromkeys(measure for scores in columns.values() for measure in scores):
        values = [scores.get(measure) for scores in columns.values()]
        table.add_row(measure, *(_shown(value, digits) for value in values))
    Console().print(table)


def _shown(value: float | int | None, digits: int) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def _cost(cost: float | None) -> str:
    return "" if cost is None else f", cost at most {cost:.2f}"
