"""How transformers gives a model that was built without memory its weights and buffers."""

from typing import Any

FLOAT32 = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")


def keeps_some_in_float32(model: Any) -> bool:
    """Whether ``from_pretrained`` leaves some weights in float32 when another dtype is asked for, as those of T5.

    transformers: ``model._keep_in_fp32_modules`` and ``_keep_in_fp32_modules_strict``, seen in 5.0 to 5.24. Without
    them this is True, and each process of a sharded run loads the whole backbone before it is divided.

    Args:
        model: A Hugging Face model.
    """
    found = [getattr(model, name) for name in FLOAT32 if hasattr(model, name)]
    return any(found) or not found


def can_compute_buffers(model: Any) -> bool:
    """Whether :func:`compute_buffers` works; if not, each process of a sharded run loads the whole backbone."""
    return callable(getattr(model, "_init_weights", None))


def compute_buffers(model: Any) -> None:
    """Compute the buffers of a model, such as rotary frequencies, which no file holds. Parameters stay as they are.

    transformers: ``model._init_weights`` computes them, and leaves a tensor alone whose attribute
    ``_is_hf_initialized`` is true; seen in 5.0 to 5.24. Were it not looked at, parameters would get random numbers, so
    call this before they are filled.

    Args:
        model: A Hugging Face model whose buffers are not on the meta device.
    """
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    for module in model.modules():
        if any(True for _ in module.buffers(recurse=False)):
            model._init_weights(module)
