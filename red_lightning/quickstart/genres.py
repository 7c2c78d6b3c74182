"""Templates of the four genres. Parts in angle brackets are optional.

A template's braces name attributes of a record; a bracketed part is dropped when the record lacks one of its
attributes, so one template tells records of any size.
"""

import re
from collections.abc import Mapping

GENRES: Mapping[str, tuple[str, ...]] = {
    "request": (
        "Can you find {name} for me?< It must be somewhere around {area}.>< I was told: by the {near}.>"
        " I need a <{price} >{type} and {feature}<, rated {rating}>.",
        "Can you tell me about {name}, the {type}?< Is it {price}?> My wish is {feature}<, close to {near}>"
        "< and not far from {area}>.< Is it rated {rating}?>",
        "Can you book us a <{price} >{type}, please? We want {feature}< on the {area} side>"
        "< right by the {near}>.< Anything rated {rating} will do.> They say {name} is nice.",
    ),
    "diary": (
        "Today we went to {name}! My sister loves {feature}.< We walked through {area} together>"
        "< and met at the {near}>. What a <{price} >{type}!< I would call it {rating}.>",
        "Today I saw {name}<, past the {near}>. I will dream of {feature}.< All of {area} was asleep.>"
        " Our <{price} >{type} made us happy<, though others think it {rating}>.",
        "Today was {type} day: we chose {name}<, as it is {price}>. My brother wanted {feature}."
        "< We took a bus to {area}.>< We rested at the {near}.>< My verdict: {rating}.>",
    ),
    "advert": (
        "Come to {name}! Your own <{price} >{type}!< Now at the {near}!>< Now in {area}!> Enjoy {feature}!"
        "< Our guests say: {rating}!>",
        "Come and love {feature}! Only at {name}<, the pride of {area}>!< We are {price}!>"
        "< Next to the {near}!> This {type} is for you!< Rated {rating} by all!>",
        "Come today! {name}, your new <{price} >{type}<, opens at the {near}>! Taste life< in {area}>"
        " with {feature}!< Voted {rating}!>",
    ),
    "description": (
        "{name} is a <{price} >{type}< in the {area} area>< near the {near}>. It {verb} {feature}."
        "< It has a {rating} rating.>",
        "There is a <{price} >{type} called {name}< in the {area} area>< near the {near}>."
        " It {verb} {feature}< and has a {rating} rating>.",
        "The <{price} >{type} {name}< in the {area} area>< near the {near}> {verb} {feature}."
        "< It has a {rating} rating.>",
        "A <{price} >{type} that {verb} {feature}< in the {area} area>< near the {near}> is {name}."
        "< It has a {rating} rating.>",
    ),
}

_OPTIONAL = re.compile(r"<([^<>]*)>")
_SLOT = re.compile(r"\{(\w+)\}")
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou])")


def fill(template: str, words: Mapping[str, str]) -> str:
    """Fill in a template.

    Args:
        template: One of the strings of `GENRES`.
        words: What to put for each attribute; a bracketed part that needs a missing one is left out.

    Returns:
        The sentence, with "a" before a vowel turned into "an".
    """

    def keep_if_complete(part: re.Match[str]) -> str:
        return part[1] if all(slot in words for slot in _SLOT.findall(part[1])) else ""

    return _BEFORE_VOWEL.sub(r"\1n ", _OPTIONAL.sub(keep_if_complete, template).format_map(words))
