"""The token that starts an encoder-decoder's output, in training and decoding."""

from typing import Any

from torch import Tensor


def start_token(config: Any) -> int:
    """Return the token before the first that is generated.

    Some configurations of mBART have none. transformers then shifts the last label, which is EOS, to the
    beginning of what the decoder reads: EOS is the start here, too.

    Args:
        config: The configuration of an encoder-decoder.
    """
    own = config.decoder_start_token_id
    return int(config.eos_token_id if own is None else own)


def decoder_inputs(config: Any, labels: Tensor) -> Tensor:
    """Return what the decoder reads to predict each label: the label before it.

    transformers' ``prepare_decoder_input_ids_from_labels`` returns the same but for mBART and PLBart. There it begins
    with the last label, a language in their pretraining, which stands nowhere when text is generated.

    Args:
        config: The configuration of an encoder-decoder.
        labels: int64, shape (rows, tokens); negative at padding.

    Returns:
        int64, of that shape.
    """
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start_token(config)
    return shifted.masked_fill(shifted < 0, config.pad_token_id)
