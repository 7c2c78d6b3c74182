"""``python -m red_lightning COMMAND``: finds the command and runs it."""

import importlib
import keyword
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from red_lightning.errors import UsageError, nearest, usage_error_in

TRAINING = {
    "fit": "train, keep the best checkpoint, test it, write results.json and edits/",
    "validate": "measure the validation metrics of a checkpoint",
    "test": "score a checkpoint on the test split",
    "predict": "write a checkpoint's outputs as JSONL",
}
TOOLS = {
    "parameters": "show what a config trains: site, shape, count, share of the backbone",
    "configs": "list the experiments that ship with the package, and copy one to start from",
    "draw": "draw a run's learned scaling and bias by layer",
    "study": "run many cells from one file, and collect them in a table: study run|status|report FILE",
    "generate": "write texts with a run's edits: generate EDITS --prompt TEXT, --file FILE, --compare EDITS ...",
    "chat": "talk with a run's edits in the terminal: chat EDITS",
    "evaluate": "score a model on a benchmark: evaluate --suite open_llm|alpaca_eval|mt_bench",
    "import": "turn the authors' released delta_vector.pth into edits: import FILE --backbone ID --output DIR",
    "combine": "add up, interpolate or stack edits of one backbone: combine EDITS EDITS --output DIR",
    "export": "fold a run's edits into a plain checkpoint: export EDITS --format merged|gguf-ready|edits --output DIR",
    "push": "push edits or the merged model to the hub, with a model card: push EDITS --to org/name",
    "score": "score predictions against references with the official E2E metrics",
    "benchmark": "measure speed and memory on this machine against the plain way: benchmark --cases NAME,NAME",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: The command line without the program's name; None takes it from ``sys.argv``.

    Returns:
        The exit status: 0, or 2 after bad input, of which one sentence is printed.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return 0
    _find_own_modules()
    try:
        _run(args)
        sys.stdout.flush()
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into an exit; argparse exits by itself after --help
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return 141  # as a program that SIGPIPE ended
    except Exception as error:
        usage_error = usage_error_in(error)
        if usage_error is None:
            raise
        print(f"error: {usage_error}", file=sys.stderr)
        return 2
    return 0


def _run(args: list[str]) -> None:
    command = args[0]
    if command in TRAINING:
        if "SLURM_JOB_ID" in os.environ:  # a SIGUSR1 waits until the callback Preemption has been imported and listens
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        importlib.import_module("red_lightning.cli.training").main(args)
    elif command in TOOLS:
        name = f"{command}_" if keyword.iskeyword(command) else command
        module = importlib.import_module(f"red_lightning.cli.{name}")
        if hasattr(module, "main"):
            module.main(args[1:])
        else:
            importlib.import_module("red_lightning.cli.parser").run(getattr(module, name), args[1:])
    else:
        raise UsageError(f"unknown command '{command}': {nearest(command, {**TRAINING, **TOOLS})}")


def _find_own_modules() -> None:
    """Let the installed script find modules in the current folder, as ``python -m`` does, but after those installed."""
    if getattr(sys.flags, "safe_path", False) or not Path().is_dir():
        return
    if not {"", str(Path.cwd())} & {*sys.path}:
        sys.path.append(str(Path.cwd()))


def _help() -> str:
    lines = [
        "usage: python -m red_lightning COMMAND [options]",
        "",
        "Representation Editing on PyTorch Lightning.",
        "",
    ]
    for title, commands in (("training commands", TRAINING), ("tools", TOOLS)):
        lines += [f"{title}:", *(f"  {name:<11} {what}" for name, what in commands.items()), ""]
    return "\n".join([*lines, "python -m red_lightning COMMAND --help explains a command's options."])


if __name__ == "__main__":
    sys.exit(main())
