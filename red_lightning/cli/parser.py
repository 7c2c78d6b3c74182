"""The argument parser: its complaints are one sentence each."""

from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser


class RedParser(LightningArgumentParser):
    """LightningCLI's parser with one-sentence errors."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print("RAW", repr(message), repr(ex))
        return super().error(message, ex)
