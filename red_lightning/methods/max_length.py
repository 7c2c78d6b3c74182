"""The positions that are left for a text, beside a method's virtual tokens."""

from typing import Any

from red_lightning.families.positions import position_limit
from red_lightning.methods.method import Method


def positions_left(config: Any, method: Method | int | None) -> tuple[int | None, str]:
    """The most tokens of a text and its answer.

    Args:
        config: The backbone's Hugging Face configuration.
        method: How it is adapted, or how many virtual tokens that takes; None if it is not.

    Returns:
        So many, and the same in words; None if the backbone's positions are relative.
    """
    limit, taken = position_limit(config), method.virtual_tokens if isinstance(method, Method) else method or 0
    if limit is None:
        return None, ""
    return limit - taken, f"{limit - taken} positions" + (f" beside {taken} virtual tokens" if taken else "")
