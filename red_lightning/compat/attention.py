"""Which attention implementation a model uses: transformers sets it publicly, and tells it by a private name."""

from typing import Any


def attention_of(model: Any) -> str | None:
    """Return the name of a model's attention implementation, such as ``sdpa``; None if it cannot be told.

    transformers: ``config._attn_implementation``, seen in 5.0 to 5.24. Without it a decoder that shares sources gets
    the mask that is added to the scores, which every implementation takes that takes a mask at all.

    Args:
        model: A Hugging Face model.
    """
    return getattr(model.config, "_attn_implementation", None)
