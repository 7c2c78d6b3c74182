"""The five scores of the E2E NLG challenge, as its official script computes them, in torchmetrics classes."""

from red_lightning.metrics.bleu import BLEU
from red_lightning.metrics.cider import CIDEr
from red_lightning.metrics.e2e import E2E_METRICS, score
from red_lightning.metrics.files import read_predictions, read_references
from red_lightning.metrics.meteor import METEOR, meteor_missing
from red_lightning.metrics.nist import NIST, LengthPenalty
from red_lightning.metrics.rouge import ROUGEL

__all__ = [
    "BLEU",
    "E2E_METRICS",
    "METEOR",
    "NIST",
    "ROUGEL",
    "CIDEr",
    "LengthPenalty",
    "meteor_missing",
    "read_predictions",
    "read_references",
    "score",
]
