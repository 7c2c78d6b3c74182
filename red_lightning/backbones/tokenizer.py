"""Load the tokenizer of a backbone."""

from typing import Any

from transformers import AutoTokenizer

from red_lightning.backbones.loading import BackboneOptions, Source
from red_lightning.errors import UsageError, first_line


def load_tokenizer(source: Source, options: BackboneOptions, needs_eos: bool = True) -> Any:
    """Load the tokenizer of a backbone; without a padding token it pads with EOS (padding is always masked).

    Args:
        source: The result of :func:`find`.
        options: How to load it.
        needs_eos: Whether texts will end with EOS (BERT has none).

    Raises:
        UsageError: There is no tokenizer, or it has no EOS token but needs one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.place, **source.arguments(options))
    except Exception as error:  # transformers raises ValueError, OSError, TypeError, ImportError, ...
        raise UsageError(f"the backbone '{source.name}' has no usable tokenizer: {first_line(error)}") from error
    if len(tokenizer) - len(tokenizer.get_added_vocab()) < 2:  # transformers makes one up where there are no files
        raise UsageError(f"the backbone '{source.name}' has no usable tokenizer: its vocabulary is missing")
    rows = getattr(source.config, "vocab_size", None) or len(tokenizer)  # of the embedding
    has_padding = tokenizer.pad_token_id is not None and tokenizer.pad_token_id < rows
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= rows:
        if needs_eos or not has_padding:
            raise UsageError(
                f"the tokenizer of '{source.name}' has no EOS token that the model knows, but each text ends with it "
                "or is padded by it; set eos_token in its tokenizer_config.json"
            )
    elif not has_padding:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
