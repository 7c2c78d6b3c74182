import re
from itertools import islice

import pytest

from red_lightning.errors import UsageError
from red_lightning.quickstart.corpus import pretraining_pairs, restaurant_pairs
from red_lightning.quickstart.domains import RESTAURANTS
from red_lightning.quickstart.grammar import parse_source

SPLITS = ["train", "validation", "test"]
SEEDS = [0, 1, 2]


def combinations(split, seed):
    parsed = [parse_source(record.source) for record in restaurant_pairs(split, seed)]
    return [frozenset(item for item in attributes.items() if item[0] != "name") for attributes in parsed]


def values(split, seed):
    return {item for record in restaurant_pairs(split, seed) for item in parse_source(record.source).items()}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_depends_on_its_seed_alone(split):
    assert restaurant_pairs(split, 3) == restaurant_pairs(split, 3)
    assert restaurant_pairs(split, 3) != restaurant_pairs(split, 4)


def test_split_sizes():
    assert [len(restaurant_pairs(split)) for split in SPLITS] == [700, 150, 200]


def test_unknown_split_is_named():
    with pytest.raises(UsageError, match=r"'validate'.*did you mean 'validation'"):
        restaurant_pairs("validate")


@pytest.mark.parametrize("seed", SEEDS)
def test_no_combination_of_attributes_occurs_twice(seed):
    everything = [combination for split in SPLITS for combination in combinations(split, seed)]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_occurs_in_train(seed):
    assert values("validation", seed) | values("test", seed) <= values("train", seed)
    assert {value for name, value in values("train", seed) if name == "type"} == set(RESTAURANTS.types)


@pytest.mark.parametrize("split", SPLITS)
def test_three_different_references(split):
    assert all(len(set(record.references)) == 3 for record in restaurant_pairs(split))


def test_pretraining_pairs_depend_on_their_seed_alone():
    first = list(islice(pretraining_pairs(5), 20))
    assert first == list(islice(pretraining_pairs(5), 20))
    assert first != list(islice(pretraining_pairs(6), 20))


def test_pretraining_never_speaks_of_restaurants():
    text = "\n".join(line for pair in islice(pretraining_pairs(), 5000) for line in pair)
    words = set(re.findall(r"\w+", text))
    assert not words & {*RESTAURANTS.types, *RESTAURANTS.features}
    assert not any(re.search(rf"\b{name}\b", text) for name in RESTAURANTS.names)
