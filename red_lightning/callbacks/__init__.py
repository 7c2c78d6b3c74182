"""Callbacks, one per file."""

from red_lightning.callbacks.best_checkpoint import BestCheckpoint, never_logged
from red_lightning.callbacks.checkpoint_files import read_checkpoint
from red_lightning.callbacks.criterion import Criterion
from red_lightning.callbacks.finite_steps import FiniteSteps
from red_lightning.callbacks.prediction_writer import PredictionWriter
from red_lightning.callbacks.preemption import Preemption
from red_lightning.callbacks.run_summary import RunSummary
from red_lightning.callbacks.sample_generations import SampleGenerations
from red_lightning.callbacks.throughput import Throughput

__all__ = [
    "BestCheckpoint",
    "Criterion",
    "FiniteSteps",
    "PredictionWriter",
    "Preemption",
    "RunSummary",
    "SampleGenerations",
    "Throughput",
    "never_logged",
    "read_checkpoint",
]
