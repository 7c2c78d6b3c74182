"""The vocabulary of the quickstart's small world: five domains to pretrain on and one to adapt to."""

from collections.abc import Mapping
from dataclasses import dataclass

ORIGINS = (
    "English", "French", "Italian", "Spanish", "Greek", "Turkish", "Indian", "Chinese", "Japanese", "Mexican",
    "Polish", "Danish", "Irish", "Roman", "Celtic", "Persian", "Cuban", "modern", "local", "classic", "rare",
    "simple", "wild", "fresh",
)  # fmt: skip
AREAS = (
    "riverside", "city centre", "old town", "harbour", "castle", "market", "university", "canal", "hillside",
    "seafront", "north side", "south side", "west end", "garden quarter", "mill", "abbey",
)  # fmt: skip
LANDMARKS = (
    "station", "old bridge", "cathedral", "town hall", "lighthouse", "main square", "stadium", "library",
    "post office", "clock tower", "ferry pier", "city gate", "windmill", "hospital", "bus stop", "fountain",
)  # fmt: skip
PRICES = ("cheap", "affordable", "mid-range", "upmarket", "pricey", "costly")
RATINGS = ("low", "average", "fair", "good", "high", "excellent")

COLOURS = (
    "Blue", "Red", "Green", "Golden", "Silver", "White", "Black", "Copper", "Amber", "Scarlet", "Little",
    "Royal", "Hidden", "Happy", "Quiet", "Crooked", "Merry", "Ivory", "Rusty", "Velvet",
)  # fmt: skip
EMBLEMS = (
    "Heron", "Fox", "Lantern", "Anchor", "Crown", "Oak", "Swan", "Compass", "Bell", "Rose", "Lion", "Feather",
    "Harp", "Star", "Badger", "Willow", "Arrow", "Falcon", "Garden", "Moon", "Barrel", "Ribbon", "Stag", "Wheel",
)  # fmt: skip


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
    types=("restaurant", "bistro", "diner", "cafe", "pub", "tavern"),
    verb="serves",
    features={
        "food": (
            "Thai", "Italian", "French", "Indian", "Japanese", "Mexican", "Greek", "Korean", "vegan", "Turkish",
        ),
    },
    names=(
        "Blue Spoon", "Golden Kettle", "Silver Ladle", "Green Olive", "Red Pepper", "Copper Pan", "Little Basil",
        "Royal Teapot", "Happy Noodle", "Hidden Table", "Quiet Fork", "Merry Onion", "Amber Plate", "Rusty Nail",
        "White Radish", "Black Cherry", "Casa Lorenzo", "Chez Margot", "Lemon Tree", "Ginger Root",
        "Saffron House", "Mandolin", "Pomodoro", "Bramble Kitchen", "The Hungry Bear", "Tandoor Corner",
        "Nonna Rosa", "Two Pigeons", "Sesame Grill", "Harvest Moon",
    ),
    areas=("riverside", "city centre", "old town", "harbour", "castle", "university", "seafront", "suburb"),
    landmarks=("station", "old bridge", "cathedral", "town hall", "lighthouse", "stadium", "library", "bakery"),
)  # fmt: skip
