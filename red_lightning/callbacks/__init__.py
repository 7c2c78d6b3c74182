"""Callbacks, one per file."""

from red_lightning.callbacks.best_checkpoint import BestCheckpoint, never_logged, read_checkpoint
from red_lightning.callbacks.finite_loss import FiniteLoss
from red_lightning.callbacks.prediction_writer import PredictionWriter
from red_lightning.callbacks.run_summary import RunSummary

__all__ = ["BestCheckpoint", "FiniteLoss", "PredictionWriter", "RunSummary", "never_logged", "read_checkpoint"]
