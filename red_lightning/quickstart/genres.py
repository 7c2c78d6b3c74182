"""The four genres a record may be told in, as templates: what stands in angle brackets may be left out.

A template's braces name attributes of a record; a bracketed part is dropped when the record lacks one of its
attributes, so one template tells records of any size.
"""

import re
from collections.abc import Mapping

GENRES: Mapping[str, tuple[str, ...]] = {
    "request": (
        "Can you find me a <{price} >{type}< in the {area} area>< near the {near}>? I think it is called {name}."
        " I would like {feature}.< I want a {rating} rating.>",
        "I am looking for {name}, a <{price} >{type}< in the {area} area>< near the {near}>."
        " Do they have {feature}?< Is the rating {rating}?>",
        "How do I get to {name}?< I know it is near the {near}.>< Is it in the {area} area?>"
        " I need a <{price} >{type} with {feature}< and a {rating} rating>.",
        "Please tell me about the {type} {name}.< Is it {price}?> Do I find {feature} there?"
        "< Is it near the {near}?>< Is it still in the {area} area?>< I heard of a {rating} rating.>",
    ),
    "diary": (
        "Today we went to {name}, a <{price} >{type}< in the {area} area>< near the {near}>."
        " We loved the {feature}.< I gave it a {rating} rating.>",
        "What a day! We walked< through the {area} area>< past the {near}> to {name}, our <{price} >{type}."
        " I will not forget the {feature}.< We left a {rating} rating.>",
        "My sister took me to {name} tonight. She wanted {feature}. It was a <{price} >{type}"
        "< in the {area} area>< near the {near}>< and we agreed on a {rating} rating>.",
        "We found a <{price} >{type} this morning< near the {near}><, deep in the {area} area>: {name}."
        " My brother talked about the {feature} all day.< I wrote down a {rating} rating.>",
    ),
    "advert": (
        "Come to {name}, your <{price} >{type}< in the {area} area>! Enjoy our {feature}!"
        "< Find us near the {near}!>< See why we have a {rating} rating!>",
        "Visit {name} today! Only here: {feature}! Your favourite <{price} >{type}< in the {area} area>"
        "< near the {near}> is open!< Proud of our {rating} rating!>",
        "Do not miss {name}!< Just by the {near}!> The best <{price} >{type}< of the {area} area> is open now"
        " with {feature}!< Guests give us a {rating} rating!>",
        "New< in the {area} area>: {name}, the <{price} >{type} for you! Fall in love with our {feature}!"
        "< Two steps from the {near}!>< Join us for a {rating} rating!>",
    ),
    "description": (
        "{name} is a <{price} >{type}< in the {area} area>< near the {near}>. It {verb} {feature}."
        "< It has a {rating} rating.>",
        "There is a <{price} >{type} called {name}< in the {area} area>< near the {near}>, which {verb} {feature}."
        "< Its rating is {rating}.>",
        "The <{price} >{type} {name}< in the {area} area>< near the {near}> {verb} {feature}."
        "< Visitors give it a {rating} rating.>",
        "{name} {verb} {feature}< in the {area} area>< near the {near}>. It is a <{price} >{type}"
        "< with a {rating} rating>.",
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
