"""The grammar that generates data-to-text pairs: records, source strings and references."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from red_lightning.quickstart.domains import COLOURS, EMBLEMS, PRICES, RATINGS, Domain, listed
from red_lightning.quickstart.genres import GENRES, fill

_ATTRIBUTE = re.compile(r"([^\[\],]+)\[([^\[\]]*)\]")
_ONSETS = listed("b, bl, br, c, ch, cl, d, dr, f, fl, g, gr, h, j, k, l, m, n, p, pl, r, s, sh, sp, st, t, th, v, w")
_VOWELS = listed("a, e, i, o, u, ai, ea, ee, oo, ou, y")
_CODAS = listed(", b, ck, d, g, l, ll, m, n, nd, ng, p, r, rn, s, sh, t, th, x")


@dataclass(frozen=True)
class Place:
    """A record and how to speak of it.

    Attributes:
        attributes: Attribute to value, in the order of the source string.
        feature: The one attribute whose value and name are read together ("Thai food").
        verb: What the place does with its feature ("serves").
    """

    attributes: Mapping[str, str]
    feature: str
    verb: str

    @property
    def source(self) -> str:
        """The record in the form of an E2E meaning representation, `name[Blue Heron], food[Thai]`."""
        return ", ".join(f"{attribute}[{value}]" for attribute, value in self.attributes.items())

    @property
    def combination(self) -> tuple[tuple[str, str], ...]:
        """All attributes but the name: two places that differ in name alone share their combination."""
        return tuple(item for item in self.attributes.items() if item[0] != "name")

    def tell(self, genre: str, rng: random.Random, count: int = 1) -> list[str]:
        """Tell of the place in `count` different ways of one genre."""
        words = {
            **self.attributes,
            "feature": f"{self.attributes[self.feature]} {self.feature}",
            "verb": self.verb,
        }
        return [fill(template, words) for template in rng.sample(GENRES[genre], count)]


def parse_source(source: str) -> dict[str, str]:
    """Read a source string back into its attributes."""
    return {attribute.strip(): value for attribute, value in _ATTRIBUTE.findall(source)}


def draw_place(domain: Domain, rng: random.Random, invention: float = 0.0) -> Place:
    """Draw a place.

    Args:
        domain: What kind of place.
        rng: Where the randomness comes from.
        invention: The probability that a word is made up. Words that occur but once can only be copied
            from the source, which is how the backbone learns to copy words it has never seen.

    Returns:
        A place with a name, a type, a feature, and one or two of price, rating, area and nearness.
    """

    def pick(values: tuple[str, ...]) -> str:
        return _invent_word(rng) if rng.random() < invention else rng.choice(values)

    feature = rng.choice(list(domain.features))
    optional = {"price": PRICES, "rating": RATINGS, "area": domain.areas, "near": domain.landmarks}
    chosen = set(rng.sample(list(optional), rng.randint(1, 2)))
    attributes = {"name": rng.choice(domain.names) if domain.names else _invent_name(rng)}
    attributes["type"] = pick(domain.types)
    attributes[feature] = pick(domain.features[feature].values)
    attributes.update({name: pick(values) for name, values in optional.items() if name in chosen})
    return Place(attributes, feature, domain.features[feature].verb)


def _invent_word(rng: random.Random) -> str:
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(1, 2)))
    word = "".join(syllables)
    return word.capitalize() if rng.random() < 0.5 else word


def _invent_name(rng: random.Random) -> str:
    first = rng.choice(COLOURS) if rng.random() < 0.4 else _invent_word(rng).capitalize()
    second = rng.choice(EMBLEMS) if rng.random() < 0.4 else _invent_word(rng).capitalize()
    return rng.choice((f"{first} {second}", f"{first} {second}", second, f"The {first} {second}"))
