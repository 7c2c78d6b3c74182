"""Prepare a backbone after loading: kernels, torch.compile and what its forward passes keep in memory."""

from collections.abc import Callable
from typing import Any

from torch import nn

from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.efficiency.compiling import compile_blocks, require_compiler
from red_lightning.efficiency.fused_kernels import fuse, require_kernels
from red_lightning.efficiency.recomputation import recompute_selectively
from red_lightning.efficiency.verification import require_equal
from red_lightning.errors import UsageError, first_line


def prepared(
    load: Callable[..., nn.Module], source: Source, options: BackboneOptions, *arguments: Any, meta: bool = False
) -> nn.Module:
    """Load a backbone and prepare it for fast forward passes.

    Args:
        load: ``load_generator`` or ``load_encoder``.
        source: Where it is.
        options: How it is loaded, and which fast paths it takes.
        arguments: Further arguments of ``load``.
        meta: Build it without weights, on the meta device; nothing is compiled then.

    Raises:
        UsageError: A compiler, a library of kernels or a GPU is missing, which is found before anything is loaded; or
            the model does not support one of the options.
    """
    require_options(options, source.config.model_type, meta)
    model = load(source, options, *arguments, meta=meta)
    try:
        prepare(model, options, meta)
    except (ValueError, ImportError, RuntimeError) as error:
        raise UsageError(f"the backbone '{source.name}' cannot be loaded: {first_line(error)}") from error
    return model


def require_options(options: BackboneOptions, model_type: str, meta: bool = False) -> None:
    """Refuse options that this machine or the model family does not support, before a model is loaded.

    Raises:
        UsageError: A compiler, a library of kernels or a GPU is missing, or the family has no kernels.
    """
    require_kernels(options.kernels, model_type, options.compile)
    if not meta:
        require_compiler(options.compile)


def prepare(model: Any, options: BackboneOptions, meta: bool = False) -> None:
    """Let forward passes use kernels and keep less. Checkpointing is not reentrant, for frozen embeddings.

    Args:
        model: A Hugging Face model whose options :func:`require_options` does not refuse.
        options: Which fast paths it takes.
        meta: Whether it has no weights; nothing is compiled then.
    """
    if options.strict:
        require_equal(model)
    fuse(model, options.kernels)
    chosen, own_way = options.selective_recomputation, options.compile or options.kernels is not None
    if chosen or (chosen is None and not own_way):
        recompute_selectively(model, always=bool(chosen))
    if options.gradient_checkpointing:
        (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()  # 5.2x
        model.disable_input_require_grads()  # else blocks before the first edit would be computed again, for nothing
    if options.compile and not meta:
        compile_blocks(model)
