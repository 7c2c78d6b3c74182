"""Score a file of predictions as the official E2E script does."""

from pathlib import Path
from typing import Literal


def score(
    references: Path,
    predictions: Path,
    json: str | None = None,
    nist_length_penalty: Literal["pymteval", "mteval"] = "pymteval",
) -> None:
    """Score predictions with BLEU, NIST, METEOR, ROUGE-L and CIDEr, as the official E2E script does.

    METEOR needs Java and the extra `meteor`; without them the table says how to get them and shows the other
    four.

    Args:
        references: Plain text with groups of references separated by blank lines, or .csv/.tsv with the
            columns mr and ref.
        predictions: Plain text with one prediction per line, or .csv/.tsv with the columns mr and output.
        json: Also write the scores in full precision to this file; with "-" write them to standard output
            instead of the table.
        nist_length_penalty: What NIST holds the length of the predictions against: "pymteval" (mean length of
            each group) or "mteval" (as the Perl script, lenient where groups differ in size).

    Raises:
        UsageError: A file is missing, empty or not UTF-8, the counts differ, or the JSON cannot be written.
    """
    from json import dumps

    from red_lightning.errors import UsageError
    from red_lightning.metrics import meteor_missing, read_predictions, read_references
    from red_lightning.metrics import score as compute
    from red_lightning.runs.display import print_scores

    groups, texts = read_references(references), read_predictions(predictions)
    if len(groups) != len(texts):
        raise UsageError(
            f"{references} holds {len(groups)} groups of references but {predictions} holds {len(texts)} "
            "predictions; give one prediction per group"
        )
    if json not in (None, "-") and not Path(json).parent.is_dir():
        raise UsageError(f"The folder of {json} does not exist; create it before scoring")
    scores = compute(texts, groups, nist_length_penalty)
    if json == "-":
        print(dumps(scores, indent=2))
        return
    missing = {name: str(meteor_missing()) for name, value in scores.items() if value is None}
    print_scores({"score": scores}, missing, title=f"Scores of {predictions}")
    if json is not None:
        try:
            Path(json).write_text(dumps(scores, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"Cannot write {json}: {error.strerror}; give another file") from None
