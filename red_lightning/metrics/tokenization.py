"""The two tokenizations of the official scores, cached."""

from functools import lru_cache

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from red_lightning.metrics.ptb import lex

_CACHED_SENTENCES = 2**17  # the references of a few test sets
_PTB_PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
_MTEVAL = Tokenizer13a()


@lru_cache(maxsize=_CACHED_SENTENCES)
def mteval_tokens(text: str) -> tuple[str, ...]:
    """Tokens of BLEU and NIST: sacrebleu's ``13a`` (``mteval-v13a.pl``), lowercased.

    Args:
        text: One sentence.

    Returns:
        The tokens; none for an empty sentence.
    """
    return tuple(_MTEVAL(text.lower()).split())


@lru_cache(maxsize=_CACHED_SENTENCES)
def ptb_tokens(text: str) -> tuple[str, ...]:
    """Tokens of METEOR, ROUGE-L and CIDEr: Penn Treebank, lowercased, without punctuation.

    What ``pycocoevalcap`` gets from Stanford's ``PTBTokenizer`` in Java. The two agree on every sentence and
    meaning representation of the E2E data and on every character of Latin, Greek and common symbols. They
    differ where

    * a sentence that ends in a lone letter and a period is followed, on the next line of the same batch, by a
      word like "The": Java then reads the next line and cuts the period off, here a sentence is read on its
      own;
    * text is glued to an internet or mail address without a space;
    * text is written in scripts that Unicode has extended since 2014, or with their combining marks.

    Brackets stay, as ``-lrb-`` and the like, since the official list of punctuation names them in upper case.

    Args:
        text: One sentence.

    Returns:
        The tokens; none for an empty sentence or one of punctuation only.
    """
    return tuple(token for token in (raw.lower() for raw in lex(text)) if token not in _PTB_PUNCTUATION)
