"""Decoding options: beams, penalties, sampling and length."""

from dataclasses import dataclass, replace

from red_lightning.errors import UsageError, require_range


@dataclass
class Decoding:
    """How text is decoded: beam search, greedily with one beam, or by sampling.

    The defaults are the paper's for E2E (Table 11); :data:`FOR_INSTRUCTIONS` has those for instruction tuning.

    Attributes:
        num_beams: Number of beams. 1 is greedy decoding, or sampling.
        length_penalty: Exponent of the length that divides a beam's log-probability.
        no_repeat_ngram_size: Size of n-grams that may not occur twice, the prompt of a decoder included. 0 allows all.
        repetition_penalty: Divisor of the logits of tokens that have occurred, the prompt of a decoder included
            (negative logits are multiplied). 1 is no penalty.
        max_new_tokens: Maximum number of generated tokens (authors' code: 256).
        stop_at_blank_line: Cut the text at the first blank line (authors' code).
        temperature: Sampling temperature. 0 is greedy decoding.
        top_p: Nucleus sampling: probability mass of the most likely tokens to sample from.
        seed: Sampling seed. It is combined with the prompt, so a text does not depend on the other prompts of its
            batch.
    """

    num_beams: int = 10
    length_penalty: float = 0.9
    no_repeat_ngram_size: int = 4
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop_at_blank_line: bool = True
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no decoding has."""
        require_range("decoding.num_beams", self.num_beams, 1, 1000)
        require_range("decoding.max_new_tokens", self.max_new_tokens, 1)
        require_range("decoding.no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        require_range("decoding.repetition_penalty", self.repetition_penalty, 0.01)
        require_range("decoding.temperature", self.temperature, 0)
        require_range("decoding.top_p", self.top_p, 1e-6, 1)
        if self.temperature > 0 and self.num_beams > 1:
            raise UsageError(
                f"decoding.temperature {self.temperature:g} draws one text, but decoding.num_beams is "
                f"{self.num_beams}; give num_beams 1, or temperature 0"
            )


FOR_INSTRUCTIONS = Decoding(
    num_beams=1,
    length_penalty=1.0,
    no_repeat_ngram_size=5,
    repetition_penalty=1.1,
    max_new_tokens=768,
    stop_at_blank_line=False,
)
"""The paper's decoding after instruction tuning (section 4.4; the authors' code: at most 768 new tokens)."""


@dataclass
class DecodingChanges:
    """Decoding options that replace those of a run. null keeps the run's value.

    Attributes:
        num_beams: Number of beams. 1 is greedy decoding, or sampling.
        length_penalty: Exponent of the length that divides a beam's log-probability.
        no_repeat_ngram_size: Size of n-grams that may not occur twice, the prompt of a decoder included. 0 allows all.
        repetition_penalty: Divisor of the logits of tokens that have occurred. 1 is no penalty.
        max_new_tokens: Maximum number of generated tokens.
        stop_at_blank_line: Cut the text at the first blank line.
        temperature: Sampling temperature. 0 is greedy decoding.
        top_p: Nucleus sampling: probability mass of the most likely tokens to sample from.
        seed: Sampling seed.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    stop_at_blank_line: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def of(self, decoding: Decoding) -> Decoding:
        """The decoding with the changes.

        Raises:
            UsageError: There is no such decoding.
        """
        return replace(decoding, **{name: value for name, value in vars(self).items() if value is not None})
