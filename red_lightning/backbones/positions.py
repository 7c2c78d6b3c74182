"""How long a text a backbone can read."""

from typing import Any

from red_lightning.families import record_of

_COUNT_FROM_PADDING = ("camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")
"""Model types whose first position is ``pad_token_id + 1``: that many rows of the position embedding serve no text."""


def position_limit(config: Any) -> int | None:
    """The most tokens a backbone can read, or None if its positions are relative (T5, DeBERTa-v3, BLOOM)."""
    record = record_of(config)
    if record is not None and record.positions is not None:
        return record.positions(config)
    if config.model_type == "t5" or not getattr(config, "position_biased_input", True):
        return None
    for key in ("n_positions", "max_position_embeddings"):
        limit = getattr(config, key, None)
        if isinstance(limit, int):
            return limit - (config.pad_token_id + 1 if config.model_type in _COUNT_FROM_PADDING else 0)
    return None
