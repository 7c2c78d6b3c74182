"""``score``: the scores of the official E2E script."""

from pathlib import Path
from typing import Literal


def score(
    references: Path,
    predictions: Path,
    json: str | None = None,
    nist_length_penalty: Literal["pymteval", "mteval"] = "pymteval",
) -> None:
    """Score predictions with BLEU, NIST, METEOR, ROUGE-L and CIDEr, as the official E2E script does.

    METEOR needs Java and the extra `meteor`. Without them the table shows the other four scores and how to install
    both.

        score --references references.txt --predictions predictions.txt --json scores.json

    Args:
        references: Text file with groups of references separated by blank lines, or .csv/.tsv with the columns mr and
            ref.
        predictions: Text file with one prediction per line, or .csv/.tsv with the columns mr and output. Two tables are
            paired by mr, in any order.
        json: JSON file for the scores in full precision. "-" prints them instead of the table.
        nist_length_penalty: Reference length of NIST: "pymteval" is the mean length of each group, "mteval" is the rule
            of the Perl script.

    Raises:
        UsageError: A file is missing, empty or not UTF-8, the counts differ, or the JSON cannot be written.
    """
    from json import dumps

    from red_lightning.errors import UsageError
    from red_lightning.metrics import meteor_missing, read_pairs
    from red_lightning.metrics import score as compute
    from red_lightning.runs.display import print_scores

    groups, texts = read_pairs(references, predictions)
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
