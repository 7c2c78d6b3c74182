"""The case that counts what a step keeps."""

from red_lightning.benchmark.saved_activations import AUTHORS, OURS, PLAIN, measure
from red_lightning.benchmark.settings import Settings


def test_red_keeps_less_and_computes_the_same() -> None:
    case = measure(Settings(size="tiny", rounds=1))
    assert len(case.checks) == 3 and all(case.checks.values())
    kept = {(row.group, row.variant): row.amounts[0] for row in case.rows if row.unit == "bytes"}
    groups = {group for group, _ in kept}
    assert len(groups) == 3
    for group in groups:
        assert kept[group, OURS] < kept[group, PLAIN] == kept[group, AUTHORS]
        assert kept[group, PLAIN] < min(kept[group, name] for name in ("LoRA, rank 8", "all weights"))
