"""Virtual tokens before a text: input embeddings, or keys and values of every attention layer.

What is learned becomes a child module (named :data:`TOKENS`) of the stack, the module that embeds the tokens and runs
the blocks, and hooks on the stack put it before each text. Whoever calls the model sees nothing of it: masks and
positions are extended on the way in, and the hidden states of virtual tokens are left out on the way back.

Where attention has a sliding window (Mistral, Gemma 2 and 3), virtual tokens leave it as the first tokens of a text do;
and since they stand before the padding on the left of a prompt, a row that is longer than the window depends on it.
"""

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache

from red_lightning.compat.key_value_cache import cache_among, cache_argument, rename_cache
from red_lightning.editing.hooks import add_hook, remove_hooks
from red_lightning.editing.structure import structure_changed
from red_lightning.errors import UsageError

TOKENS = "virtual_tokens"
"""Name of the child module that holds what is learned."""


def stack_of(backbone: Any) -> Any:
    """The module that embeds and reads a text: all hidden layers, or an encoder-decoder's encoder."""
    if backbone.config.is_encoder_decoder:
        return backbone.get_encoder()
    inner = backbone.base_model
    return getattr(inner, "decoder", inner)  # OPT's language model calls its inner stack directly


def attach_embeddings(backbone: Any, tokens: nn.Module) -> None:
    """Put learned embeddings before those of each text.

    Args:
        backbone: A Hugging Face model.
        tokens: Called, it returns the embeddings: shape (1, virtual tokens, columns of the input embeddings).
    """
    stack, count = stack_of(backbone), tokens().shape[1]
    _add(stack, tokens)
    add_hook(stack, _prepend_embeddings, before=True, with_kwargs=True)
    if backbone.config.is_encoder_decoder:  # the decoder attends to the virtual tokens, too
        add_hook(backbone.get_decoder(), _show_to_decoder, before=True, with_kwargs=True)
        return
    blocks = stack.encoder if getattr(stack, "pooler", None) is not None else stack  # a pooler reads the first token
    add_hook(blocks, partial(_strip, count), with_kwargs=True)


def attach_cache(backbone: Any, tokens: nn.Module) -> None:
    """Put learned keys and values before those of each text, in every layer.

    In an encoder-decoder they go before those of the decoder's own tokens, as in peft.

    Args:
        backbone: A Hugging Face model.
        tokens: Called, it returns the keys and the values: each of shape (layers, 1, heads, virtual tokens, columns of
            a head).

    Raises:
        UsageError: The model's attention reads no keys and values but those of the text, or not in training.
    """
    stack = backbone.get_decoder() if backbone.config.is_encoder_decoder else stack_of(backbone)
    name = type(backbone).__name__
    if cache_argument(stack) is None:
        raise UsageError(
            f"{name} reads no cache of keys and values, which is where a prefix goes; use PromptTuning, whose virtual "
            "tokens are input embeddings"
        )
    if any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules()):
        raise UsageError(
            f"{name} drops the cache of keys and values that holds the prefix where gradient checkpointing is on; "
            "turn model.backbone_options.gradient_checkpointing off, or use PromptTuning"
        )
    _add(stack, tokens)
    add_hook(stack, _fill_cache, before=True, with_kwargs=True)
    add_hook(stack, _withhold_cache, with_kwargs=True)


def cache_shape(config: Any) -> tuple[int, int, int]:
    """Layers, heads of keys and values, and columns of a head, of the stack that :func:`attach_cache` fills."""
    if config.is_encoder_decoder:
        if hasattr(config, "d_kv"):  # T5
            return config.num_decoder_layers, config.num_heads, config.d_kv
        heads = config.decoder_attention_heads
        return config.decoder_layers, heads, config.d_model // heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, width


def detach(backbone: nn.Module) -> None:
    """Remove what was attached; the backbone is bit for bit what it was."""
    structure_changed()
    for module in backbone.modules():
        if TOKENS in dict(module.named_children()):
            delattr(module, TOKENS)
        remove_hooks(module, _prepend_embeddings, _show_to_decoder, _strip, _fill_cache, _withhold_cache)


def arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a module's forward is called with, by name."""
    named = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
    rename_cache(module, named)
    named.pop("cache_position", None)  # transformers 5.0 counts it without virtual tokens; the module finds it out
    return named


def seen_tokens(named: dict[str, Any]) -> int:
    """How many tokens the cache among a stack's arguments holds: 0 where a text begins."""
    cache = cache_among(named)
    return 0 if cache is None else int(cache.get_seq_length())


def _add(stack: nn.Module, tokens: nn.Module) -> None:
    if hasattr(stack, TOKENS):
        raise UsageError("the backbone has virtual tokens already; detach them first")
    structure_changed()
    stack.add_module(TOKENS, tokens.to(next(stack.parameters()).device))


def _prepend_embeddings(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Forward pre-hook of a stack."""
    named, learned = arguments(module, args, kwargs), module.get_submodule(TOKENS)()
    count, seen = learned.shape[1], seen_tokens(named)
    text = (
        named["inputs_embeds"] if named.get("input_ids") is None else module.get_input_embeddings()(named["input_ids"])
    )
    rows, width = text.shape[:2]
    _extend_mask(named, count, rows, seen + width if seen else count + width, text.device)
    if seen:  # the cache holds the virtual tokens
        if named.get("position_ids") is not None:
            named["position_ids"] = named["position_ids"] + count
        return (), named
    named["input_ids"] = None
    named["inputs_embeds"] = torch.cat([learned.to(text.dtype).expand(rows, -1, -1), text], dim=1)
    if (types := named.get("token_type_ids")) is not None:
        named["token_type_ids"] = torch.cat([types.new_zeros(len(types), count), types], dim=1)
    if (positions := named.get("position_ids")) is not None:
        before = torch.arange(count, device=positions.device).expand(len(positions), -1)
        named["position_ids"] = torch.cat([before, positions + count], dim=1)
    return (), named


def _strip(count: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of a stack or of what runs its blocks: leave the hidden states of ``count`` virtual tokens out."""
    mask = arguments(module, args, kwargs).get("attention_mask")
    hidden = output[0]
    if mask is not None and mask.shape[-1] > hidden.shape[1]:  # the virtual tokens lie in the cache
        return output
    if isinstance(output, tuple):
        return (hidden[:, count:], *output[1:])
    output["last_hidden_state"] = hidden[:, count:]
    if output.get("hidden_states") is not None:
        output["hidden_states"] = tuple(states[:, count:] for states in output["hidden_states"])
    return output


def _show_to_decoder(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Forward pre-hook of a decoder: extend the encoder's mask to the virtual tokens that the encoder has read."""
    named = arguments(module, args, kwargs)
    mask, states = named.get("encoder_attention_mask"), named.get("encoder_hidden_states")
    if mask is not None and states is not None:
        count = states.shape[1] - mask.shape[1]
        named["encoder_attention_mask"] = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
    return (), named


def _fill_cache(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Forward pre-hook of a stack: put the prefix into the cache where a text begins, and count it in from then on."""
    named = arguments(module, args, kwargs)
    text = named["inputs_embeds"] if named.get("input_ids") is None else named["input_ids"]
    rows, width = text.shape[:2]
    keys, values = module.get_submodule(TOKENS)()
    count = keys.shape[3]
    cache = cache_among(named)
    if cache is None:
        own, crossed = DynamicCache(config=module.config), named.get("encoder_hidden_states") is not None
        cache = EncoderDecoderCache(own, DynamicCache()) if crossed else own
        named[str(cache_argument(module))] = cache
    if not seen_tokens(named):
        dtype = module.get_input_embeddings().weight.dtype
        cache = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        for layer, pair in enumerate(zip(keys.to(dtype), values.to(dtype), strict=True)):
            cache.update(*(numbers.expand(rows, -1, -1, -1) for numbers in pair), layer)
    _extend_mask(named, count, rows, seen_tokens(named) + width, text.device)
    if named.get("position_ids") is not None:
        named["position_ids"] = named["position_ids"] + count
    return (), named


def _withhold_cache(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of a stack: return no cache where none is wanted: ``generate`` would give it the text again."""
    if arguments(module, args, kwargs).get("use_cache") is not False:
        return output
    if isinstance(output, tuple):
        return tuple(part for part in output if not isinstance(part, Cache))
    return type(output)(**{name: part for name, part in output.items() if not isinstance(part, Cache)})


def _extend_mask(named: dict[str, Any], count: int, rows: int, width: int, device: torch.device) -> None:
    """Let the attention mask show the virtual tokens, too; without a mask, all ``width`` tokens, those among them."""
    mask: Tensor | None = named.get("attention_mask")
    if mask is None:
        named["attention_mask"] = torch.ones(rows, width, dtype=torch.int64, device=device)
    else:
        named["attention_mask"] = torch.cat([mask.new_ones(rows, count), mask], dim=1)
