import random

import pytest

from red_lightning.quickstart.domains import PRETRAINING_DOMAINS, RESTAURANTS
from red_lightning.quickstart.genres import GENRES, fill
from red_lightning.quickstart.grammar import draw_place, parse_source

ALL_DOMAINS = [*PRETRAINING_DOMAINS.values(), RESTAURANTS]


def test_bracketed_parts_need_all_their_attributes():
    template = "{name} is a <{price} >{type}< near the {near}, {area}>."
    assert fill(template, {"name": "Maple", "type": "bar", "near": "mill"}) == "Maple is a bar."
    assert fill(template, {"name": "Maple", "type": "bar", "price": "cheap"}) == "Maple is a cheap bar."


def test_article_suits_the_next_word():
    assert fill("A {type} and a {other}", {"type": "inn", "other": "bar"}) == "An inn and a bar"


@pytest.mark.parametrize("domain", ALL_DOMAINS, ids=lambda domain: domain.types[0])
@pytest.mark.parametrize("genre", GENRES)
def test_every_telling_mentions_every_value_and_leaves_no_markup(domain, genre):
    rng = random.Random(0)
    for _ in range(100):
        place = draw_place(domain, rng, invention=0.2)
        for text in place.tell(genre, rng, count=3):
            assert all(value in text for value in place.attributes.values())
            assert not set("<>{}[]") & set(text)
            assert "  " not in text


@pytest.mark.parametrize("domain", ALL_DOMAINS, ids=lambda domain: domain.types[0])
def test_source_parses_back(domain):
    rng = random.Random(1)
    for place in (draw_place(domain, rng, invention=0.2) for _ in range(100)):
        assert parse_source(place.source) == place.attributes


def test_source_is_written_as_in_e2e():
    place = draw_place(RESTAURANTS, random.Random(0))
    assert place.source.startswith(f"name[{place.attributes['name']}], type[{place.attributes['type']}], food[")


def test_same_seed_draws_the_same_places():
    assert draw_place(RESTAURANTS, random.Random(7)) == draw_place(RESTAURANTS, random.Random(7))


def test_restaurant_nouns_are_known_to_no_other_domain():
    for domain in PRETRAINING_DOMAINS.values():
        assert not set(domain.types) & set(RESTAURANTS.types)
        assert not set(domain.features) & set(RESTAURANTS.features)
