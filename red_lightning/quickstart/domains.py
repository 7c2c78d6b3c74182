"""The vocabulary of the quickstart's small world: five domains to pretrain on and one to adapt to."""

from collections.abc import Mapping
from dataclasses import dataclass

ORIGINS = tuple(
    "English, French, Italian, Spanish, Greek, Indian, Chinese, Japanese, Mexican, Polish, Irish, Roman, modern, local, classic, fresh".split(
        ", "
    )
)
AREAS = tuple(
    "riverside, city centre, old town, harbour, castle, market, university, canal, seafront, north side, west end".split(
        ", "
    )
)
LANDMARKS = tuple(
    "station, old bridge, cathedral, town hall, main square, stadium, library, post office, clock tower, city gate, bus stop".split(
        ", "
    )
)
PRICES = tuple("cheap, fair, costly, pricey, upmarket".split(", "))
RATINGS = tuple("low, average, good, high, excellent".split(", "))

COLOURS = tuple(
    "Blue, Red, Green, Golden, Silver, White, Black, Copper, Little, Royal, Happy, Quiet".split(", ")
)
EMBLEMS = tuple(
    "Heron, Fox, Lantern, Anchor, Crown, Oak, Swan, Bell, Rose, Lion, Harp, Star, Garden, Moon, Barrel, Wheel".split(
        ", "
    )
)


@dataclass(frozen=True)
class Domain:
    """One kind of place.

    Attributes:
        types: The nouns that name such a place.
        verb: What the place does with its feature, in the third person.
        features: What it may have, each with the values it may take (`art[Roman]` is read as "Roman art").
        names: The places' names; if empty, names are made up one by one.
        areas: Where such places lie.
        landmarks: What they lie near to.
    """

    types: tuple[str, ...]
    verb: str
    features: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...] = ()
    areas: tuple[str, ...] = AREAS
    landmarks: tuple[str, ...] = LANDMARKS


PRETRAINING_DOMAINS: Mapping[str, Domain] = {
    "hotels": Domain(
        types=("hotel", "inn", "hostel", "lodge", "guesthouse", "chalet"),
        verb="offers",
        features={
            "views": ("sea", "lake", "mountain", "garden", "city", "valley"),
            "rooms": ("quiet", "large", "sunny", "warm", "simple", "modern"),
            "breakfasts": ORIGINS,
        },
    ),
    "museums": Domain(
        types=("museum", "gallery", "archive", "palace", "exhibition", "collection"),
        verb="shows",
        features={"art": ORIGINS, "coins": ORIGINS, "maps": ORIGINS, "pottery": ORIGINS},
    ),
    "parks": Domain(
        types=("park", "garden", "meadow", "orchard", "greenhouse", "arboretum"),
        verb="grows",
        features={
            "roses": ("red", "white", "yellow", *ORIGINS),
            "herbs": ORIGINS,
            "trees": ("tall", "old", "green", *ORIGINS),
        },
    ),
    "theatres": Domain(
        types=("theatre", "cinema", "opera house", "concert hall", "club", "playhouse"),
        verb="presents",
        features={
            "music": ("jazz", "folk", "rock", "piano", *ORIGINS),
            "drama": ORIGINS,
            "comedy": ORIGINS,
            "dance": ORIGINS,
        },
    ),
    "shops": Domain(
        types=("shop", "bookshop", "market hall", "store", "boutique", "workshop"),
        verb="sells",
        features={
            "books": ORIGINS,
            "toys": ("wooden", "tin", "paper", *ORIGINS),
            "fabric": ("silk", "wool", "linen", *ORIGINS),
            "furniture": ORIGINS,
        },
    ),
}

RESTAURANTS = Domain(
    types=("bistro", "diner", "cafe", "pub", "grill", "bar"),
    verb="serves",
    features={
        "food": (
            "Thai", "Italian", "French", "Indian", "Japanese", "Mexican", "Greek", "Korean", "vegan", 
        ),
    },
    names=(
        "Blue Spoon", "Golden Pan", "Green Olive", "Copper Pot", "Royal Tea", "Happy Noodle", "Quiet Fork",
        "Black Bean", "Lemon", "Ginger", "Mandolin", "Maple", "The Bear", "The Oven", "Nonna", "Sesame",
        "Silver Plate", "Red Onion", "White Bowl", "Little Table", "Casa Nora", "Harvest Moon", "Saffron", "Basil",
    ),
    areas=("riverside", "city centre", "old town", "harbour", "castle", "university", "seafront", "suburb"),
    landmarks=("station", "old bridge", "cathedral", "town hall", "stadium", "library", "bakery"),
)  # fmt: skip
