"""Settings of torch.compile that have no public name."""

from typing import Any

import torch

from red_lightning.errors import UsageError


def guard_hooks() -> None:
    """Let compiled code look whether a module's hooks have changed; it is compiled again then.

    torch: ``torch._dynamo.config.skip_nnmodule_hook_guards``, seen in 2.4 to 2.13. Without it a compiled block would
    go on with edits that were detached, and without those that were attached.

    Raises:
        UsageError: The installed torch has no such setting.
    """
    settings: Any = torch._dynamo.config
    if not hasattr(settings, "skip_nnmodule_hook_guards"):
        raise UsageError(
            f"model.backbone_options.compile does not work with torch {torch.__version__}, which has no setting "
            "torch._dynamo.config.skip_nnmodule_hook_guards, so that compiled blocks would not notice edits; leave "
            "compile out, or install torch 2.13"
        )
    settings.skip_nnmodule_hook_guards = False


def allow_variants(count: int) -> None:
    """Allow at least so many compiled variants of a piece of code.

    torch: ``torch.compiler.config.recompile_limit`` is public, but only since 2.7; before,
    ``torch._dynamo.config.cache_size_limit``. With neither the limit stays as it is, and a block beyond it runs
    uncompiled.

    Args:
        count: How many.
    """
    public = getattr(torch.compiler, "config", None)
    for settings, name in ((public, "recompile_limit"), (torch._dynamo.config, "cache_size_limit")):
        if hasattr(settings, name):
            setattr(settings, name, max(count, getattr(settings, name)))
            return
