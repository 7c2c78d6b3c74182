"""The authors' released generations, and what the tests need beside the package."""

from pathlib import Path

import pytest

from red_lightning.metrics import meteor_missing, read_predictions, read_references
from red_lightning.metrics.predictions import Row, to_rows

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture(scope="session")
def official_files() -> tuple[Path, Path]:
    folder = SHARED / "authors" / "gpt2_medium"
    if not folder.is_dir():
        pytest.skip(f"the released generations are not at {folder}")
    return folder / "label.txt", folder / "pred.txt"


@pytest.fixture(scope="session")
def official_rows(official_files: tuple[Path, Path]) -> list[Row]:
    references, predictions = official_files
    return to_rows(read_predictions(predictions), read_references(references))


@pytest.fixture(scope="session")
def e2e_sentences(official_rows: list[Row]) -> list[str]:
    pandas = pytest.importorskip("pandas")
    folder = SHARED / "hub" / "tuetschek" / "e2e_nlg" / "data"
    if not folder.is_dir():
        pytest.skip(f"the E2E data is not at {folder}")
    sentences = {text for prediction, group in official_rows for text in (prediction, *group)}
    for path in sorted(folder.glob("*.parquet")):
        frame = pandas.read_parquet(path, columns=["human_reference", "meaning_representation"])
        sentences.update(frame.human_reference, frame.meaning_representation)
    return sorted(sentences)


@pytest.fixture
def java() -> None:
    if missing := meteor_missing():
        pytest.skip(missing)


@pytest.fixture
def random_rows() -> list[Row]:
    """Sentences of few words, so that n-grams repeat; rows with one to four references."""
    import random

    rng = random.Random(7)
    words = [
        "the",
        "eagle",
        "is",
        "a",
        "pub",
        "near",
        ",",
        ".",
        "cheap",
        "family-friendly",
        "it's",
        "£20",
        "not",
    ]

    def sentence(shortest: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(shortest, 15)))

    return [(sentence(0), tuple(sentence(1) + " pub" for _ in range(rng.randint(1, 4)))) for _ in range(60)]
