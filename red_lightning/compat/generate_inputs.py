"""How transformers' ``generate`` feeds a model, which its documentation leaves open."""

from typing import Any

from transformers import GenerationMixin

PREPARE = "prepare_inputs_for_generation"


def is_fed_as_most(model: Any) -> bool:
    """Whether ``generate`` feeds a model as it feeds most: the prompt first, then each new token, and the cache.

    transformers: a model class that wants more has a ``prepare_inputs_for_generation`` other than the one of
    ``GenerationMixin``; seen in 5.0 to 5.24. Without that method this is False, and transformers' ``generate`` decodes
    in place of this package's own loops, which is slower.

    Args:
        model: A Hugging Face model.
    """
    plain = getattr(GenerationMixin, PREPARE, None)
    return plain is not None and getattr(type(model), PREPARE, None) is plain
