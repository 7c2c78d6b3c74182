"""The five scores of the E2E NLG challenge, in the order of its official script."""

from collections.abc import Sequence

from red_lightning.errors import UsageError
from red_lightning.metrics.bleu import BLEU, bleu
from red_lightning.metrics.cider import CIDEr, cider
from red_lightning.metrics.meteor import METEOR, meteor, meteor_missing
from red_lightning.metrics.nist import NIST, LengthPenalty, nist
from red_lightning.metrics.predictions import to_rows
from red_lightning.metrics.rouge import ROUGEL, rouge_l
from red_lightning.metrics.text_metric import TextMetric

E2E_METRICS: dict[str, type[TextMetric]] = {
    "BLEU": BLEU,
    "NIST": NIST,
    "METEOR": METEOR,
    "ROUGE_L": ROUGEL,
    "CIDEr": CIDEr,
}


def score(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    nist_length_penalty: LengthPenalty = "pymteval",
) -> dict[str, float | None]:
    """Compute the five scores of the official script (`tuetschek/e2e-metrics`).

    Args:
        predictions: One text per input, at least one.
        references: One group of at least one text per input.
        nist_length_penalty: See `red_lightning.metrics.nist.nist`.

    Returns:
        Name to score, in the order of `E2E_METRICS`; METEOR is None if it cannot run (`meteor_missing` says
        why).

    Raises:
        UsageError: There are no rows, the counts differ, or a group is empty.
    """
    # sorted, so that the figures are those of the metric classes to the last bit
    rows = sorted(to_rows(predictions, references))
    if not rows:
        raise UsageError("There is nothing to score; give at least one prediction with its references")
    return {
        "BLEU": bleu(rows),
        "NIST": nist(rows, nist_length_penalty),
        "METEOR": None if meteor_missing() else meteor(rows),
        "ROUGE_L": rouge_l(rows),
        "CIDEr": cider(rows),
    }
