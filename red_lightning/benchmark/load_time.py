"""Loading: a backbone with its edits from a folder, against transformers' plain ``from_pretrained``."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

import red_lightning
from red_lightning.adapters import save_edits
from red_lightning.backbones.fingerprint import fingerprint
from red_lightning.benchmark.clocks import Measured
from red_lightning.benchmark.measure import Case, Row, Variant, compare
from red_lightning.benchmark.random_tasks import save_folder
from red_lightning.benchmark.settings import Settings
from red_lightning.benchmark.shapes import build, shape_of
from red_lightning.methods import RED

PLAIN, OURS = "from_pretrained", "red_lightning.load"


def measure(settings: Settings) -> Case:
    """Compare loading times on a model shaped like GPT-2, and starts of the command line with those of plain Python.

    Args:
        settings: How to measure.
    """
    with TemporaryDirectory() as folder:
        backbone, edits = Path(folder, "backbone"), Path(folder, "edits")
        _write(settings, backbone, edits)

        def plain() -> None:
            model: Any = AutoModelForCausalLM.from_pretrained(backbone, dtype=settings.torch_dtype)
            model.to(settings.device)
            AutoTokenizer.from_pretrained(backbone)

        def ours() -> None:
            red_lightning.load(edits, device=settings.device)

        shape = shape_of("gpt2", settings)
        title = f"{shape.family}, {shape.layers} layers of {shape.width}, files in the system's cache"
        rows = compare(title, [Variant(PLAIN, plain), Variant(OURS, ours)], settings, "load")
    return Case("From files to a model that is ready", [*rows, *_starts(settings)])


def _write(settings: Settings, backbone: Path, edits: Path) -> None:
    """A random backbone with a tokenizer, and edits of it."""
    model = build("gpt2", settings)
    save_folder(model, backbone)
    whole = fingerprint(model)
    method = RED()
    learned = method.apply(model)
    record: dict[str, Any] = {
        "backbone": str(backbone),
        "commit": None,
        "fingerprint": whole,
        "dtype": settings.dtype,
        "method": method.describe(),
        "task": "DataToText",
    }
    save_edits(edits, learned, record)


def _starts(settings: Settings) -> list[Row]:
    """How long the command line takes to answer."""

    def start(*args: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *args], check=True, capture_output=True)

    def rows(group: str, code: str, *args: str) -> list[Row]:
        command = " ".join(("python -m red_lightning", *args))
        variants = [
            Variant(f"python -c '{code}'", start("-c", code)),
            Variant(command, start("-m", "red_lightning", *args)),
        ]
        return compare(group, variants, settings, "start", clock=_of_children)

    return [
        *rows("the command line", "pass", "--help"),
        *rows("a training command", "import lightning.pytorch.cli, transformers", "fit", "--help"),
    ]


def _of_children(run: Callable[[], Any]) -> Measured:
    """Run, and measure the processor's time of the processes that it starts."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - wall
    return Measured(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)
