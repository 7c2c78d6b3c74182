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
