"""Decoding options: beams, penalties, sampling and length."""

from dataclasses import dataclass, field, replace

from red_lightning.errors import UsageError, require_range


@dataclass
class Decoding:
    """How text is decoded: beam search, greedily with one beam, or by sampling.

    The defaults are greedy decoding without penalties. :data:`FOR_E2E` and :data:`FOR_INSTRUCTIONS` are the paper's,
    which its configs set: penalties of repetition make a model that should copy a text skip parts of it.

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
        top_k: Number of the most likely tokens to sample from. 0 is all.
        min_p: Least probability of a token to sample, as a share of the most likely token's. 0 is none.
        stop: Texts before the first of which a generated text ends.
        seed: Sampling seed. It is combined with the prompt, so a text does not depend on the other prompts of its
            batch.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop_at_blank_line: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: list[str] = field(default_factory=list)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no decoding has."""
        require_range("decoding.num_beams", self.num_beams, 1, 1000)
        require_range("decoding.max_new_tokens", self.max_new_tokens, 1)
        require_range("decoding.no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        require_range("decoding.repetition_penalty", self.repetition_penalty, 0.01)
        require_range("decoding.temperature", self.temperature, 0)
        require_range("decoding.top_p", self.top_p, 1e-6, 1)
        require_range("decoding.top_k", self.top_k, 0)
        require_range("decoding.min_p", self.min_p, 0, 1)
        if not all(self.stop):
            raise UsageError("decoding.stop has an empty text; leave it out")
        if self.temperature > 0 and self.num_beams > 1:
            raise UsageError(
                f"decoding.temperature {self.temperature:g} draws one text, but decoding.num_beams is "
                f"{self.num_beams}; give num_beams 1, or temperature 0"
            )


FOR_E2E = Decoding(num_beams=10, length_penalty=0.9, no_repeat_ngram_size=4, stop_at_blank_line=True)
"""The paper's decoding for E2E (Table 11; the authors' code: cut at a blank line)."""
FOR_INSTRUCTIONS = Decoding(no_repeat_ngram_size=5, repetition_penalty=1.1, max_new_tokens=768)
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
        top_k: Number of the most likely tokens to sample from. 0 is all.
        min_p: Least probability of a token to sample, as a share of the most likely token's. 0 is none.
        stop: Texts before the first of which a generated text ends.
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
    top_k: int | None = None
    min_p: float | None = None
    stop: list[str] | None = None
    seed: int | None = None

    def of(self, decoding: Decoding) -> Decoding:
        """The decoding with the changes.

        Raises:
            UsageError: There is no such decoding.
        """
        changed = replace(decoding, **{name: value for name, value in vars(self).items() if value is not None})
        if changed.temperature == 0 and (given := [n for n in SAMPLING if getattr(self, n) is not None]):
            raise UsageError(
                f"decoding.{given[0]} is for sampling, but decoding.temperature is 0; give a temperature such as 0.7"
            )
        return changed


SAMPLING = ("top_p", "top_k", "min_p")
"""What has an effect only if tokens are sampled."""
