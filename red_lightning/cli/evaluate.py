"""``evaluate``: score a model on a benchmark."""

import importlib
from argparse import ArgumentParser
from collections.abc import Sequence

from red_lightning.errors import UsageError, nearest

SUITES = {
    "open_llm": "the six tasks of the Open LLM Leaderboard, or any other task of lm-eval",
    "alpaca_eval": "win rate against reference answers, judged through an OpenAI-compatible endpoint",
    "mt_bench": "80 two-turn conversations, graded through an OpenAI-compatible endpoint",
}
"""Suite -> what it measures. Each is the typed function of its name in the module of its name, imported when asked."""


def main(args: Sequence[str]) -> None:
    """Find the suite and pass it the rest of the command line.

    Args:
        args: What follows ``evaluate``.

    Raises:
        UsageError: No suite is given, or an unknown one.
    """
    finder = ArgumentParser(prog="python -m red_lightning evaluate", add_help=False, allow_abbrev=False)
    finder.add_argument("--suite", nargs="?")
    given, rest = finder.parse_known_args(list(args))
    if given.suite is None and (not args or {"-h", "--help"} & {*rest}):
        print(_help())
        raise SystemExit(0)  # as argparse ends after --help
    if given.suite not in SUITES:
        wrong = "give --suite" if given.suite is None else f"unknown suite '{given.suite}'"
        raise UsageError(f"{wrong}: {nearest(given.suite or '', SUITES)}")
    from red_lightning.cli.parser import run  # which imports torch

    module = importlib.import_module(f"red_lightning.cli.{given.suite}")
    run(getattr(module, given.suite), rest, f"evaluate --suite {given.suite}")


def _help() -> str:
    return "\n".join(
        [
            "usage: python -m red_lightning evaluate --suite SUITE [options]",
            "",
            "Score a model on a benchmark.",
            "",
            "suites:",
            *(f"  {name:<11} {what}" for name, what in SUITES.items()),
            "",
            "Run python -m red_lightning evaluate --suite SUITE --help for the options of a suite.",
        ]
    )
