"""The names of parameters of modules that torch wraps."""

import re

WRAPPERS = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod")


def unwrapped(name: str) -> str:
    """Return the name that a parameter had before anything was wrapped around its modules.

    torch: ``FullyShardedDataParallel`` puts ``_fsdp_wrapped_module`` into the names, its activation checkpointing
    ``_checkpoint_wrapped_module``, and ``torch.compile`` of a module ``_orig_mod``; seen in 2.4 to 2.13. With other
    names the adapter and the checkpoints of a wrapped run would have names that no other run finds.

    Args:
        name: The name, such as ``backbone._fsdp_wrapped_module.h.0.editor.bias``.
    """
    return re.sub(rf"\b(?:{'|'.join(WRAPPERS)})\.", "", name)
