"""Scores as torchmetrics classes: of classes, of numbers, and the five of the E2E NLG challenge's official script."""

from red_lightning.metrics.bleu import BLEU
from red_lightning.metrics.cider import CIDEr
from red_lightning.metrics.class_scores import CLASS_METRICS, NUMBER_METRICS, Confusion, check_metrics, per_class
from red_lightning.metrics.e2e_files import read_pairs, read_predictions, read_references
from red_lightning.metrics.e2e_scores import E2E_METRICS, score
from red_lightning.metrics.mean_loss import MeanLoss
from red_lightning.metrics.meteor import METEOR, meteor_missing
from red_lightning.metrics.nist import NIST, LengthPenalty
from red_lightning.metrics.rouge import ROUGEL

__all__ = [
    "BLEU",
    "CLASS_METRICS",
    "E2E_METRICS",
    "METEOR",
    "NIST",
    "NUMBER_METRICS",
    "ROUGEL",
    "CIDEr",
    "Confusion",
    "LengthPenalty",
    "MeanLoss",
    "check_metrics",
    "meteor_missing",
    "per_class",
    "read_pairs",
    "read_predictions",
    "read_references",
    "score",
]
