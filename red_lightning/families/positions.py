"""The number of positions of a backbone."""

from typing import Any

from red_lightning.families import record_of


def position_limit(config: Any) -> int | None:
    """The most tokens a backbone can read, or None if its positions are relative (T5, DeBERTa-v3, BLOOM).

    A family whose record does not say has as many as ``n_positions`` or ``max_position_embeddings`` says.
    """
    record = record_of(config)
    if record is not None and record.positions is not None:
        return record.positions(config)
    for key in ("n_positions", "max_position_embeddings"):
        limit = getattr(config, key, None)
        if isinstance(limit, int):
            return limit
    return None


def positions_left(config: Any, virtual_tokens: int) -> tuple[int | None, str]:
    """Return the most tokens of a text with its answer, beside a method's virtual tokens.

    Args:
        config: The backbone's Hugging Face configuration.
        virtual_tokens: Positions that the method occupies (``Method.virtual_tokens``); 0 without one.

    Returns:
        The number and its wording for messages; None and an empty string if the backbone's positions are relative.
    """
    limit = position_limit(config)
    if limit is None:
        return None, ""
    left = limit - virtual_tokens
    return left, f"{left} positions" + (f" beside {virtual_tokens} virtual tokens" if virtual_tokens else "")
