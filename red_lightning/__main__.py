"""Find the command of ``python -m red_lightning COMMAND`` and run it."""

import importlib
import keyword
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from red_lightning.errors import UsageError, nearest, printable, usage_error_in

TRAINING = {
    "fit": "train, keep the best checkpoint, test it, write results.json and the adapter",
    "validate": "compute the validation metrics of a checkpoint",
    "test": "score a checkpoint on the test split",
    "predict": "write the outputs of a checkpoint as JSONL",
}
TOOLS = {
    "parameters": "list the trainable parameters of a config: site, shape, count, share of the backbone",
    "configs": "list the experiments that ship with the package, or copy one",
    "draw": "draw the learned scaling and bias by layer: draw ADAPTER",
    "study": "run many experiments from one file and collect their table: study run|status|report FILE",
    "generate": "generate texts: generate ADAPTER --prompt TEXT, --file FILE or --compare ADAPTER ...",
    "chat": "chat with a model in the terminal: chat ADAPTER",
    "evaluate": "score a model on a benchmark: evaluate --suite open_llm|alpaca_eval|mt_bench",
    "import": "convert the authors' delta_vector.pth to an adapter: import FILE --backbone ID --output DIR",
    "combine": "add, interpolate or stack adapters of one backbone: combine ADAPTER ADAPTER --output DIR",
    "export": "merge an adapter into a standard checkpoint: export ADAPTER --output DIR",
    "push": "push an adapter or the merged model to the hub with a model card: push ADAPTER --to org/name",
    "score": "score predictions against references with the official E2E metrics",
    "benchmark": "measure speed and memory on this machine: benchmark --cases NAME,NAME",
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
    if args[0] == "--version":
        print(f"red-lightning {version('red-lightning')}")
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
        print(f"error: {printable(str(usage_error))}", file=sys.stderr)
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
    return "\n".join([*lines, "Run python -m red_lightning COMMAND --help for the options of a command."])


if __name__ == "__main__":
    sys.exit(main())
