"""What an install without extras leaves out of a run's result, reported before the run."""

from importlib.util import find_spec

from lightning.pytorch.utilities import rank_zero_only

from red_lightning.tasks import BackboneTask, ClassifierTask


@rank_zero_only
def report_missing(task: BackboneTask) -> None:
    """Print one line for each part of a test's result that needs a package which is not installed.

    Args:
        task: The task that will be tested.
    """
    for metric, why in task.missing_metrics.items():
        print(f"note: {why}; without it, {metric} is not measured", flush=True)
    if isinstance(task, ClassifierTask) and find_spec("matplotlib") is None:
        why = "drawing needs matplotlib: python -m pip install matplotlib"
        print(f"note: {why}; without it, no confusion matrix is drawn", flush=True)
