"""The studies that ship run through the hub as they are, but for the length of their runs.

Without ``--only`` the same commands run every cell of every file.
"""

import csv
import shlex
from pathlib import Path

import pytest

from red_lightning.cli import configs
from tests.cli.commands import run_apart
from tests.cli.test_hub_configs import hub  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

SHORT = """trainer.max_steps=2 trainer.limit_val_batches=2 trainer.limit_test_batches=1
    data.train_size=40 data.eval_batch_size=4"""
WRITTEN = "model.decoding.max_new_tokens=8"
SAMPLES = {  # the cells, and what shortens the study besides
    "table1": ("backbone=base method=Adapter,BitFit task=rte seed=43", ""),
    "table2": ("backbone=medium method=Adapter_FFN seed=44", WRITTEN),
    "table3": ("method=BitFit task=stsb seed=42", ""),
    "table5": ("method=RED seed=42", WRITTEN),
    "table6": ("vectors=RED task=cola seed=46", ""),
    "table7": ("position=Attn task=mrpc seed=45", ""),
    "llama": ("method=LoRA", WRITTEN),
    "minilm": ("method=SSF task=mrpc seed=42", "model.backbone=google-bert/bert-base-uncased"),
    "few_shot": ("method=RED task=sst2 examples=16 seed=43", "trainer.check_val_every_n_epoch=1 trainer.max_steps=5"),
}


def test_every_table_is_sampled() -> None:
    assert {*SAMPLES} == {*configs.studies()} - {"own_texts"}


@pytest.mark.parametrize("name", SAMPLES)
def test_cells_of_a_study_run_and_are_collected(name: str, hub: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    only, more = SAMPLES[name]
    settings = shlex.split(f"--set {SHORT} {more}")
    done = run_apart(tmp_path, "study", "run", name, "--only", *shlex.split(only), *settings, env=hub)
    assert done.returncode == 0, done.stdout + done.stderr
    report = run_apart(tmp_path, "study", "report", name, *settings, env=hub)
    assert report.returncode == 0, report.stderr
    assert "## Failed" not in report.stdout
    assert name in ("llama", "minilm", "few_shot") or "| paper |" in report.stdout
    with (tmp_path / f"studies/{name}/report/table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ran = [row for row in rows if row["seeds"] == "1"]
    assert ran
    for row in rows:
        assert row["failed"] == "0" and (row in ran or row["seeds"] == "0")
    for row in ran:
        assert int(row["parameters"]) > 0
