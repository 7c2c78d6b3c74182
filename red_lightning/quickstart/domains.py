"""Vocabulary of the quickstart: five domains for pretraining and one for adaptation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


def listed(words: str) -> tuple[str, ...]:
    """Split a list as one writes it in a sentence, "one, two, three"."""
    return tuple(words.split(", "))


ORIGINS = listed(
    "English, French, Italian, Spanish, Greek, Indian, Chinese, Japanese, Mexican, Polish, Irish, Roman, "
    "modern, local, classic, fresh"
)
AREAS = listed(
    "riverside, city centre, old town, harbour, castle, market, university, canal, seafront, north side, west end"
)
LANDMARKS = listed(
    "station, old bridge, cathedral, town hall, main square, stadium, library, post office, clock tower, "
    "city gate, bus stop"
)
PRICES = listed("cheap, modest, costly, pricey, upmarket")
RATINGS = listed("low, average, good, high, excellent")
COLOURS = listed("Blue, Red, Green, Golden, Silver, White, Black, Copper, Little, Royal, Happy, Quiet")
EMBLEMS = listed(
    "Heron, Fox, Lantern, Anchor, Crown, Oak, Swan, Bell, Rose, Lion, Harp, Star, Garden, Moon, Barrel, Wheel"
)


class Feature(NamedTuple):
    """What a place may have: the verb that says so, and the values (`art[Roman]` is read as "Roman art")."""

    verb: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """One kind of place.

    Attributes:
        types: The nouns that name such a place.
        features: What it may have; a place has one of them.
        names: The places' names; if empty, names are made up one by one.
        areas: Where such places lie.
        landmarks: What they lie near to.
    """

    types: tuple[str, ...]
    features: Mapping[str, Feature]
    names: tuple[str, ...] = ()
    areas: tuple[str, ...] = AREAS
    landmarks: tuple[str, ...] = LANDMARKS


PRETRAINING_DOMAINS: Mapping[str, Domain] = {
    "hotels": Domain(
        types=listed("hotel, inn, hostel, lodge, guesthouse, chalet"),
        features={
            "views": Feature("offers", listed("sea, lake, mountain, garden, city, valley")),
            "rooms": Feature("offers", listed("quiet, large, sunny, warm, simple, modern")),
            "breakfast": Feature("serves", ORIGINS),
        },
    ),
    "museums": Domain(
        types=listed("museum, gallery, archive, palace, exhibition, collection"),
        features={
            "art": Feature("shows", ORIGINS),
            "coins": Feature("shows", ORIGINS),
            "maps": Feature("keeps", ORIGINS),
            "pottery": Feature("keeps", ORIGINS),
        },
    ),
    "parks": Domain(
        types=listed("park, garden, meadow, orchard, greenhouse, arboretum"),
        features={
            "roses": Feature("grows", ("red", "white", "yellow", *ORIGINS)),
            "herbs": Feature("grows", ORIGINS),
            "trees": Feature("grows", ("tall", "old", "green", *ORIGINS)),
        },
    ),
    "theatres": Domain(
        types=listed("theatre, cinema, opera house, concert hall, club, playhouse"),
        features={
            "music": Feature("plays", ("jazz", "folk", "rock", "piano", *ORIGINS)),
            "comedy": Feature("plays", ORIGINS),
            "dance": Feature("shows", ORIGINS),
        },
    ),
    "shops": Domain(
        types=listed("shop, bookshop, market hall, store, boutique, workshop"),
        features={
            "books": Feature("sells", ORIGINS),
            "toys": Feature("sells", ("wooden", "tin", "paper", *ORIGINS)),
            "tea": Feature("serves", ORIGINS),
            "fabric": Feature("sells", ("silk", "wool", "linen", *ORIGINS)),
        },
    ),
}

RESTAURANTS = Domain(
    types=listed("bistro, diner, cafe, pub, grill, bar"),
    features={
        "food": Feature("serves", listed("Thai, Italian, French, Indian, Japanese, Mexican, Greek, Korean, vegan"))
    },
    names=listed(
        "Blue Spoon, Golden Pan, Green Olive, Copper Pot, Royal Tea, Happy Noodle, Quiet Fork, Black Bean, "
        "Lemon, Ginger, Mandolin, Maple, The Bear, The Oven, Nonna, Sesame, Silver Plate, Red Onion, "
        "White Bowl, Little Table, Casa Nora, Harvest Moon, Saffron, Basil"
    ),
    areas=listed("riverside, city centre, old town, harbour, castle, university, seafront, suburb"),
    landmarks=listed("station, old bridge, cathedral, town hall, stadium, library, bakery"),
)
