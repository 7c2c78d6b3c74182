"""METEOR 1.5 (Denkowski and Lavie, 2014): the authors' Java program from `pycocoevalcap`."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from red_lightning.errors import UsageError
from red_lightning.metrics.predictions import Row
from red_lightning.metrics.text_metric import TextMetric
from red_lightning.metrics.tokenization import ptb_tokens

_SEPARATOR = " ||| "
_HEAP = "-Xmx2G"  # what the official script grants the program for its table of paraphrases


def meteor_missing() -> str | None:
    """Say what METEOR lacks on this machine.

    Returns:
        One sentence with the command that installs what is missing, or None if METEOR can run.
    """
    if _jar() is None:
        return "METEOR needs the package pycocoevalcap: python -m pip install pycocoevalcap"
    if shutil.which("java") is None:
        return "METEOR needs Java: install it, for example with apt-get install default-jre-headless"
    return None


def meteor(rows: Sequence[Row]) -> float:
    """Corpus METEOR for English, on Penn Treebank tokens without punctuation.

    Starts the Java program, which takes seconds to read its paraphrases, and ends it before returning.

    Args:
        rows: At least one pair of prediction and references.

    Returns:
        A fraction from 0 to 1.

    Raises:
        UsageError: `pycocoevalcap` or Java is missing, or the program ended early.
    """
    with TemporaryFile() as log, _program(log) as (to_java, from_java):

        def ask(*fields: str) -> str:
            to_java.write(_SEPARATOR.join(fields) + "\n")
            to_java.flush()
            return answer()

        def answer() -> str:
            line = from_java.readline()
            if not line:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()
                raise UsageError(f"METEOR's Java program ended early, saying: {said[-1] if said else 'nothing'}")
            return line.strip()

        try:
            # one sentence at a time: the program answers each line, so neither side can fill the other's pipe
            stats = [ask("SCORE", *map(_one_line, group), _one_line(prediction)) for prediction, group in rows]
            ask("EVAL", *stats)  # answered by a line per row, then by the corpus score
            return float([answer() for _ in rows][-1])
        except BrokenPipeError:
            answer()  # the program is gone: raises with what it said
            raise


def _one_line(text: str) -> str:
    return " ".join(ptb_tokens(text)).replace("|||", " ")


def _jar() -> Path | None:
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        return None
    jar = Path(next(iter(package.submodule_search_locations))) / "meteor" / "meteor-1.5.jar"
    return jar if jar.is_file() else None


@contextmanager
def _program(log: IO[bytes]) -> Iterator[tuple[IO[str], IO[str]]]:
    """Run the program for the length of the block; its noise goes to `log`."""
    if missing := meteor_missing():
        raise UsageError(missing)
    options = ["-Dfile.encoding=UTF-8", "-jar", _HEAP, str(_jar()), "-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(
        ["java", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # they are pipes
        try:
            yield process.stdin, process.stdout
        finally:
            process.kill()  # it keeps no state, and Popen's exit waits for it


class METEOR(TextMetric):
    """METEOR 1.5, a fraction from 0 to 1; see `meteor`.

    Raises:
        UsageError: `pycocoevalcap` or Java is missing.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if missing := meteor_missing():
            raise UsageError(missing)

    def score(self, rows: Sequence[Row]) -> float:
        """Score rows with `meteor`."""
        return meteor(rows)
