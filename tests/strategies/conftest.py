"""Training runs of one and of several processes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backbones_zoo import save_backbone
from tests.cli.commands import environment
from tests.strategies.train import train


@dataclass
class Seen:
    """What a run left behind: validation losses, score, predictions of each row, learned tensors, checkpoint."""

    losses: list[float]
    bleu: float
    predictions: dict[str, str]
    learned: dict[str, torch.Tensor]
    checkpoint: dict[str, Any]
    path: str

    @property
    def adam(self) -> dict[str, dict[str, torch.Tensor]]:
        return self.checkpoint["optimizer_states"][0]["state"]


class Runs:
    """Makes runs in one folder."""

    def __init__(self, folder: Path, backbone: Path) -> None:
        self.folder, self.backbone = folder, backbone

    def __call__(self, name: str, **options: Any) -> Seen:
        settings = {"backbone": str(self.backbone), "out": str(self.folder / name), **options}
        if settings.get("devices", 1) == 1:
            os.environ.pop("PL_GLOBAL_SEED", None)
            train(**settings)
        else:
            command = [sys.executable, "-m", "tests.strategies.train", json.dumps(settings)]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
        out = self.folder / name
        checkpoint = torch.load(f"{out}.ckpt", weights_only=True)
        learned = torch.load(f"{out}.pt", weights_only=True)
        return Seen(
            **json.loads(Path(f"{out}.json").read_text()), learned=learned, checkpoint=checkpoint, path=f"{out}.ckpt"
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("strategies")
    return Runs(folder, save_backbone("llama", folder / "llama", dropout=0.0))


@pytest.fixture(scope="module")
def one(runs: Runs) -> Seen:
    """Four epochs of a single process."""
    return runs("one", epochs=4)
