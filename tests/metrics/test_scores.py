"""Each score against something that was computed without this package."""

from math import exp, log, log2
from typing import Any

import pytest
import sacrebleu

from red_lightning.errors import UsageError
from red_lightning.metrics.bleu import bleu
from red_lightning.metrics.cider import cider
from red_lightning.metrics.nist import NIST, nist
from red_lightning.metrics.predictions import Row
from red_lightning.metrics.rouge import rouge_l
from red_lightning.metrics.tokenization import ptb_tokens

OFFICIAL = {bleu: 0.6500466927, nist: 8.3933578594, rouge_l: 0.6761092221, cider: 2.2333457845}


@pytest.mark.parametrize("score", OFFICIAL)
def test_equals_the_official_script(score: Any, official_rows: list[Row]) -> None:
    assert len(official_rows) == 630
    assert score(official_rows) == pytest.approx(OFFICIAL[score], abs=1e-9)


def test_both_nist_penalties_agree_where_the_output_is_long_enough(official_rows: list[Row]) -> None:
    assert nist(official_rows, "mteval") == pytest.approx(OFFICIAL[nist], abs=1e-9)


def test_bleu_is_sacrebleus(random_rows: list[Row]) -> None:
    longest = max(len(group) for _, group in random_rows)
    streams: Any = [[(group + (None,) * 4)[i] for _, group in random_rows] for i in range(longest)]
    expected = sacrebleu.corpus_bleu([prediction for prediction, _ in random_rows], streams, lowercase=True)
    assert bleu(random_rows) == pytest.approx(expected.score / 100, abs=1e-12)


def test_bleu_takes_the_shorter_of_two_equally_close_references() -> None:
    prediction = "a b c d e"
    tied = bleu([(prediction, ("a b c d e f", "a b c d"))])
    assert tied == pytest.approx(1.0)
    assert bleu([(prediction, ("a b c d e f",))]) == pytest.approx(exp(1 - 6 / 5))


def coco(scorer: Any, rows: list[Row]) -> float:
    references = {i: [" ".join(ptb_tokens(text)) for text in group] for i, (_, group) in enumerate(rows)}
    predictions = {i: [" ".join(ptb_tokens(prediction))] for i, (prediction, _) in enumerate(rows)}
    return float(scorer.compute_score(references, predictions)[0])


def test_rouge_and_cider_are_pycocoevalcaps(random_rows: list[Row]) -> None:
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    reference_cider = pytest.importorskip("pycocoevalcap.cider.cider")
    rows = [*random_rows, ("", ("...",)), ("call (555) 123-4567 now", ("call (555) 123-4567",))]
    assert rouge_l(rows) == pytest.approx(coco(rouge.Rouge(), rows), abs=1e-12)
    assert cider(rows) == pytest.approx(coco(reference_cider.Cider(), rows), abs=1e-10)


def test_nist_by_hand() -> None:
    # references: a 3, b 1, c 1 of 5 tokens; bigrams ab, ac, one each; a is seen 3 times before
    rows: list[Row] = [("a b", ("a b", "a")), ("c", ("a c",))]
    unigrams = (log2(5 / 3) + log2(5 / 1) + log2(5 / 1)) / 3
    bigrams = log2(3 / 1) / 1

    def penalty(ratio: float) -> float:
        return exp(-log(2) / log(1.5) ** 2 * log(min(ratio, 1)) ** 2)

    assert nist(rows) == pytest.approx((unigrams + bigrams) * penalty(3 / (1.5 + 2)))
    assert nist(rows, "mteval") == pytest.approx((unigrams + bigrams) * penalty(3 / (5 / 2)))


def test_nist_of_two_thirds_of_the_length_is_halved() -> None:
    full = nist([("a b", ("a b",)), ("c", ("c",))])
    assert nist([("a b", ("a b",)), ("", ("c",))]) < full
    assert nist([("a b", ("a b c",))]) == pytest.approx(0.5 * (log2(3) + log2(1)))


def test_nist_names_the_penalties_it_knows() -> None:
    with pytest.raises(UsageError, match=r"mtevl.*did you mean 'mteval'"):
        NIST("mtevl")  # type: ignore[arg-type]


@pytest.mark.parametrize("score", OFFICIAL)
@pytest.mark.parametrize(
    "rows",
    [[("", ("a b",))], [("", ("",))], [(".", (".", ""))], [("a", ("a",))], [("a", ("",)), ("", ("a",))]],
)
def test_empty_text_has_a_finite_score(score: Any, rows: list[Row]) -> None:
    assert 0 <= score(rows) < 20


def test_a_perfect_prediction_scores_best(random_rows: list[Row]) -> None:
    rows = [(group[0], (group[0],)) for _, group in random_rows]
    assert bleu(rows) == pytest.approx(1)
    assert rouge_l(rows) == pytest.approx(1)
    assert cider(rows) <= 10
