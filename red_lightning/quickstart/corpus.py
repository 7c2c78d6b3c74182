"""The two corpora of the quickstart: for pretraining and for adaptation."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from red_lightning.errors import UsageError, nearest
from red_lightning.quickstart.domains import PRETRAINING_DOMAINS, RESTAURANTS
from red_lightning.quickstart.genres import GENRES
from red_lightning.quickstart.grammar import Place, draw_place

RESTAURANT_SPLITS = {"test": 200, "validation": 150, "train": 700}
REFERENCES = 3
INVENTION = 0.4
_RESTAURANT_WORD = re.compile(rf"\b({'|'.join([*RESTAURANTS.names, *RESTAURANTS.types, *RESTAURANTS.features])})\b")


@dataclass(frozen=True)
class Record:
    """One input of the task and what may be answered.

    Attributes:
        source: The record as a string, `name[Blue Spoon], type[bistro], food[Thai]`.
        references: Descriptions of it, each worded differently.
    """

    source: str
    references: list[str]


def restaurant_pairs(split: str, seed: int = 0) -> list[Record]:
    """Return a split of the task: restaurants, which pretraining never shows, and their descriptions.

    The splits share no combination of attributes (the name aside), and train holds every value.

    Args:
        split: `train`, `validation` or `test`.
        seed: Another seed makes another data set.

    Returns:
        The records, the same for the same split and seed.

    Raises:
        UsageError: If there is no such split.
    """
    if split not in RESTAURANT_SPLITS:
        raise UsageError(f"There is no quickstart split '{split}': {nearest(split, RESTAURANT_SPLITS)}.")
    rng = random.Random(f"restaurants {seed}")
    places = _different_places(rng, sum(RESTAURANT_SPLITS.values()))
    start = sum(list(RESTAURANT_SPLITS.values())[: list(RESTAURANT_SPLITS).index(split)])
    tell = random.Random(f"restaurants {seed} {split}")
    return [
        Record(place.source, place.tell("description", tell, REFERENCES))
        for place in places[start : start + RESTAURANT_SPLITS[split]]
    ]


def pretraining_pairs(seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield sources and targets without end, each a place of any pretraining domain told in any genre.

    Args:
        seed: Another seed makes another corpus.

    Yields:
        Pairs that hold no word of the restaurants' own, not even as a made-up word that happens to be one.
    """
    rng = random.Random(f"pretraining {seed}")
    domains, genres = list(PRETRAINING_DOMAINS.values()), list(GENRES)
    while True:
        place = draw_place(rng.choice(domains), rng, INVENTION)
        if not _RESTAURANT_WORD.search(place.source):
            yield place.source, place.tell(rng.choice(genres), rng)[0]


def _different_places(rng: random.Random, count: int) -> list[Place]:
    places: dict[tuple[tuple[str, str], ...], Place] = {}
    while len(places) < count:
        place = draw_place(RESTAURANTS, rng)
        places.setdefault(place.combination, place)
    return list(places.values())
