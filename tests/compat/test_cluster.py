"""SLURM's environment in a Trainer. Where this fails, a release of Lightning keeps it elsewhere (compat/cluster)."""

import pytest
from lightning import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from red_lightning.compat.cluster import leave_requeueing


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_lightning_leaves_slurms_signals(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "1", "JOB_NAME": "a", "LOCALID": "0", "PROCID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    environment = SLURMEnvironment()
    trainer = Trainer(accelerator="cpu", devices=1, strategy=strategy, plugins=[environment], logger=False)
    assert environment.auto_requeue
    leave_requeueing(trainer)
    assert not environment.auto_requeue


def test_other_environments_are_no_matter() -> None:
    leave_requeueing(Trainer(accelerator="cpu", plugins=[LightningEnvironment()], logger=False))
