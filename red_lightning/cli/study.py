"""``study``: many runs from one file, and their table."""

import shlex
import signal
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from red_lightning.atomic_files import write_whole
from red_lightning.cli.parameter_counts import Counter
from red_lightning.cli.parser import RedParser
from red_lightning.cli.study_plan import Plan, pairs
from red_lightning.errors import UsageError, require_range
from red_lightning.pictures.study_scores import draw_results
from red_lightning.studies.cell_results import collect
from red_lightning.studies.cell_runs import State
from red_lightning.studies.cells import Cell
from red_lightning.studies.launchers import note_lost_jobs, run_here, submit, visible_devices
from red_lightning.studies.study_tables import as_csv, latex, markdown

KINDS = ("done", "running", "queued", "failed", "stale", "waiting")


def main(args: Sequence[str]) -> None:
    """Run the command.

    Args:
        args: What follows ``study``.
    """
    given = _parser().parse_args(list(args))
    options = given[given.subcommand]
    plan = Plan.read(options)
    {"run": _run, "status": _status, "report": _report}[given.subcommand](plan, options)


def _parser() -> RedParser:
    parser = RedParser(
        prog="python -m red_lightning study",
        description="Run many experiments from one file and collect their results in a table.",
    )
    commands = parser.add_subcommands(required=True)
    about = {
        "run": "Run all unfinished cells. Rerun the same command to resume.",
        "status": "Show how many cells are done, running, failed and waiting.",
        "report": "Write the table as Markdown, CSV and LaTeX, and a picture. With --only: print a part of the table.",
    }
    for name, what in about.items():
        command = RedParser(description=what)
        command.add_argument("file", help="Study file, or the name of one that ships with the package, such as table1.")
        command.add_argument("--folder", type=str, default="studies", help="Parent of the studies' folders.")
        command.add_argument(
            "--only", nargs="+", default=[], metavar="AXIS=LABEL,...", help="Restrict to cells with these labels."
        )
        command.add_argument(
            "--set", nargs="+", default=[], metavar="KEY=VALUE", help="Settings for every run. Needs a new --folder."
        )
        if name == "run":
            command.add_argument("--dry_run", action="store_true", help="Print the commands without running them.")
            command.add_argument(
                "--jobs",
                type=int,
                default=None,
                help="Parallel runs. Default: one per GPU. More than one per GPU shares the GPU.",
            )
            command.add_argument(
                "--launcher",
                choices=["local", "slurm"],
                default="local",
                help="Run on this machine or as a SLURM job array.",
            )
            command.add_argument(
                "--slurm",
                nargs="+",
                default=[],
                metavar="KEY=VALUE",
                help="Options of submitit, such as timeout_min=600 gpus_per_node=0.",
            )
        if name == "status":
            command.add_argument("--watch", action="store_true", help="Refresh until all cells are done.")
        commands.add_subcommand(name, command, help=what)
    return parser


def _run(plan: Plan, options: Any) -> None:
    require_range("--jobs", 1 if options.jobs is None else options.jobs, 1)
    if options.dry_run:
        _show(plan)
        return
    plan.folder.claim(plan.study)
    if plan.trials:
        print(f"{len(plan.trials)} runs choose {plan.study.select.over} on the validation split")  # type: ignore[union-attr]
        waiting = _launch(plan, plan.trials, options)
        if waiting:
            print("run the same command again when they have ended")
            return
    ready = plan.ready()
    _launch(plan, ready, options)
    cells = [*plan.trials, *ready]
    failed = {cell.name: state.reason for cell in cells if (state := plan.folder.state(cell)).kind == "failed"}
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    unchosen = [choice for choice in plan.choices().values() if choice.value is None]
    for choice in unchosen:
        print(f"nothing could be chosen for {', '.join(choice.labels.values())}: {choice.open}")
    if failed:
        raise UsageError(f"{len(failed)} of {len(cells)} runs failed; the same command tries them again")
    if ended := [choice for choice in unchosen if not choice.missing]:
        raise UsageError(ended[0].way)


def _launch(plan: Plan, cells: list[Cell], options: Any) -> bool:
    """Run what is not done; whether some of it is still to come."""
    note_lost_jobs(cells, plan.folder)
    states = {cell.name: plan.folder.state(cell) for cell in cells}
    todo = [cell for cell in cells if states[cell.name].kind not in ("done", "running", "queued")]
    counts = ", ".join(f"{n} {kind}" for kind in KINDS if (n := sum(s.kind == kind for s in states.values())))
    print(f"{len(cells)} runs: {counts or 'none'}", flush=True)
    if stale := [cell.name for cell in todo if states[cell.name].kind == "stale"]:
        print(f"their settings have changed, so these are run anew and replaced: {', '.join(stale)}", flush=True)
    if options.launcher == "slurm" and todo:
        jobs = submit(todo, plan.folder, options.jobs, pairs(options.slurm, "--slurm"))
        print(f"submitted {len(jobs)} jobs: {jobs[0]} to {jobs[-1]}")
        return True
    ended = 0

    def told(cell: Cell, state: State) -> None:
        nonlocal ended
        ended += 1
        took = f" in {state.seconds:.0f} s" if state.seconds is not None else ""
        print(f"[{ended}/{len(todo)}] {cell.name}: {state.kind}{took}{_found(state)}", flush=True)

    devices = visible_devices()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the runs in order, as Ctrl-C does
    try:
        run_here(todo, plan.folder, options.jobs or len(devices) or 1, devices, told)
    finally:
        signal.signal(signal.SIGTERM, before)
    return any(plan.folder.state(cell).kind in ("running", "queued") for cell in cells)


def _found(state: State) -> str:
    if state.result is None:
        return f": {state.reason}" if state.reason else ""
    name, score = next(iter(state.result["scores"].items()), ("", None))
    selection = state.result["selection"]
    name, score = (name, score) if name else (selection["monitor"], selection["score"])
    return "" if score is None else f", {name} {score:.4f}"


def _show(plan: Plan) -> None:
    """List the commands of all runs, how many numbers each trains, and how many there are."""
    counter = Counter()
    ready = {cell.name: cell for cell in plan.ready()}
    cells = [*plan.trials, *(ready.get(cell.name, cell) for cell in plan.cells)]
    for cell in cells:
        count = counter.count(cell)
        trained = "?" if count is None else f"{count:,}"
        print(f"# {cell.name}: {plan.folder.state(cell).kind}, trains {trained} parameters")
        print(shlex.join(["python", *plan.folder.command(cell)[1:]]))
    for reason in counter.reasons:
        print(f"# not counted: {reason}")
    print(f"{len(plan.trials)} runs choose, {len(plan.cells)} are tested" if plan.trials else f"{len(cells)} runs")


def _status(plan: Plan, options: Any) -> None:
    console = Console()
    if not options.watch:
        console.print(_status_table(plan))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_status_table(plan), refresh=True)
            states = [plan.folder.state(cell).kind for cell in [*plan.trials, *plan.ready()]]
            if not {*states} & {"running", "queued"}:
                return
            time.sleep(5)


def _status_table(plan: Plan) -> Table:
    """One line for each row of the report, and the time that is left."""
    ready = {cell.name: cell for cell in plan.ready()}
    lines: dict[tuple[str, ...], list[State]] = {}
    for cell in [*plan.trials, *plan.cells]:
        row = tuple(cell.labels[axis] for axis in plan.study.report.rows)
        known = cell.tried is not None or cell.name in ready
        state = plan.folder.state(ready.get(cell.name, cell)) if known else State("waiting")
        lines.setdefault(row, []).append(state)
    every = [state for states in lines.values() for state in states]
    reasons = dict.fromkeys(f"failed: {state.reason}" for state in every if state.kind == "failed")
    caption = Text("\n".join([_left(every), *reasons]))  # not markup: reasons hold brackets
    table = Table(title=Text(plan.study.title), caption=caption, caption_justify="left")
    for name in (*plan.study.report.rows, *KINDS):
        table.add_column(name, justify="right" if name in KINDS else "left")
    for row, states in lines.items():
        table.add_row(*row, *(str(sum(s.kind == kind for s in states) or "-") for kind in KINDS))
    table.add_section()
    table.add_row(
        "all", *[""] * (len(plan.study.report.rows) - 1), *(str(sum(s.kind == k for s in every)) for k in KINDS)
    )
    return table


def _left(states: Sequence[State]) -> str:
    took = [state.seconds for state in states if state.seconds is not None]
    left = sum(state.kind != "done" for state in states)
    if not left:
        return "all done"
    if not took:
        return f"{left} runs to go"
    at_once = max(1, sum(state.kind == "running" for state in states))
    hours = sum(took) / len(took) * left / at_once / 3600
    about = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
    return f"{left} runs to go, about {about} at {at_once} at once"


def _report(plan: Plan, options: Any) -> None:
    choices = plan.choices()
    ready = {cell.name: cell for cell in plan.ready()}

    def state(cell: Cell) -> State:
        return plan.folder.state(ready[cell.name]) if cell.name in ready else State("waiting")

    results = collect(plan.study, plan.cells, state)
    cells = [*plan.trials, *ready.values()]
    failures = {cell.name: found.reason for cell in cells if (found := plan.folder.state(cell)).kind == "failed"}
    text = markdown(results, plan.folder.runs, choices.values(), failures)
    if options.only:
        print(f"{text}\nnot written: these are some cells of the study alone")
        return
    target = plan.folder.path / "report"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in {"table.md": text, "table.csv": as_csv(results), "table.tex": latex(results)}.items():
            write_whole(target / name, content)
    except OSError as error:
        raise UsageError(f"the report cannot be written to '{target}': {error.strerror}") from error
    print(text)
    written = "table.md, table.csv, table.tex"
    try:
        draw_results(results, target / "scores.png")
        written += ", scores.png"
    except UsageError as error:
        print(f"no picture: {error}")
    print(f"report: {target}/ ({written})")
