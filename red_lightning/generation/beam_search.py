"""Beam search that prefills each prompt once and finishes each row early.

Texts are those of transformers' beam search (``early_stopping=False``) of each row alone: a beam that ends has the
score ``log-probability / tokens ** length_penalty``, its end among the tokens; as many as there are beams are kept, and
a row is done when its best running beam, divided likewise, is worse than all of those.
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from red_lightning.generation.logits_processors import Processors
from red_lightning.generation.reader import Reads

LOWEST = -1.0e9
"""The score of what cannot win."""


def beam_search(
    reader: Reads,
    prompts: Tensor,
    processors: Processors,
    beams: int,
    length_penalty: float,
    max_new_tokens: int,
    stop_ids: Tensor,
    pad_id: int,
) -> Tensor:
    """Write the likeliest text after each prompt.

    Args:
        reader: Has read nothing yet.
        prompts: int64, shape (rows, tokens); negative at padding.
        processors: Change the log-probabilities of the next token, given all tokens so far (negative at padding).
        beams: Beams of each row.
        length_penalty: Exponent of the length.
        max_new_tokens: Most tokens of a text, its end included.
        stop_ids: Tokens that end a text: int64, shape (count,).
        pad_id: Fills a row behind its end.

    Returns:
        The new tokens: int64, shape (rows, at most ``max_new_tokens``).
    """
    rows = torch.arange(len(prompts), device=prompts.device)
    written = prompts.new_full((len(prompts), max_new_tokens), pad_id)
    search = _Beams(prompts, written, beams, stop_ids, length_penalty)
    logits = reader.read(prompts.clamp(min=0)).repeat_interleave(beams, dim=0)
    reader.widen(beams)
    for length in range(1, max_new_tokens + 1):
        log_probabilities = processors(search.tokens.flatten(0, 1), log_softmax(logits, dim=-1))
        done = search.step(log_probabilities, length, last=length == max_new_tokens)
        left = None
        if done.any():
            written[rows[done]] = search.best[done]
            (left,) = (~done).nonzero(as_tuple=True)
            if not len(left):
                return written[:, :length]
            rows = rows[left]
        reader.keep(search.keep(left), left)
        logits = reader.read(search.tokens[..., -1:].flatten(0, 1))
    raise AssertionError("the last step ends every beam")


class _Beams:
    """The running beams of some rows, and those that have ended.

    Args:
        prompts: int64, shape (rows, tokens).
        padding: What a row is that has no text yet: int64, shape (rows, tokens to write).
        beams: Beams of each row.
        stop_ids: Tokens that end a text.
        length_penalty: Exponent of the length.

    Attributes:
        tokens: The running beams, their prompts included: int64, shape (rows, beams, tokens).
        scores: Their log-probabilities, the highest first: float32, shape (rows, beams).
        ended_scores: Those of the best that have ended, divided: float32, shape (rows, beams).
        ended: Whether these are any: bool, shape (rows, beams).
        best: The text of the best of them: int64, shape (rows, tokens to write).
        parents: The beam that each running one continues: int64, shape (rows, beams).
    """

    def __init__(self, prompts: Tensor, padding: Tensor, beams: int, stop_ids: Tensor, length_penalty: float) -> None:
        self.stop_ids, self.length_penalty = stop_ids, length_penalty
        self.tokens = prompts[:, None].expand(-1, beams, -1)
        self.scores = torch.zeros(len(prompts), beams, device=prompts.device)
        self.scores[:, 1:] = LOWEST  # all beams are still alike
        self.ended_scores = torch.full_like(self.scores, LOWEST)
        self.ended = torch.zeros_like(self.scores, dtype=torch.bool)
        self.best = padding.clone()
        self.parents = torch.zeros_like(self.scores, dtype=torch.int64)

    def step(self, log_probabilities: Tensor, length: int, last: bool) -> Tensor:
        """Continue each beam by one token.

        Enough candidates are looked at that as many beams go on, even if all the others end.

        Args:
            log_probabilities: float32, shape (rows x beams, vocabulary).
            length: How many new tokens there are then.
            last: Whether that ends every beam.

        Returns:
            Whether each row is done: bool, shape (rows,).
        """
        rows, beams = self.scores.shape
        totals = log_probabilities.unflatten(0, (rows, beams)) + self.scores[..., None]
        candidates = max(2, 1 + len(self.stop_ids)) * beams
        scores, choices = totals.flatten(1).topk(candidates)
        parents, tokens = choices // totals.shape[-1], choices % totals.shape[-1]
        texts = torch.cat([_take(self.tokens, parents), tokens[..., None]], dim=-1)
        ends = torch.isin(tokens, self.stop_ids) | last
        self._end(texts, scores, ends, length)
        self.scores, order = (scores + ends * LOWEST).topk(beams)
        self.tokens, self.parents = _take(texts, order), parents.gather(1, order)
        hoped = self.scores[:, :1] / length**self.length_penalty
        worst = torch.where(self.ended, self.ended_scores.amin(dim=1, keepdim=True), LOWEST)
        return ends.all(dim=1) | ~(hoped > worst).any(dim=1)

    def keep(self, left: Tensor | None) -> Tensor:
        """Go on with some rows only.

        Args:
            left: Their indices; None keeps all.

        Returns:
            What each running beam continues, as an index among the beams of all rows: int64, shape (rows left x beams,)
        """
        rows, beams = self.scores.shape
        continued = self.parents + torch.arange(0, rows * beams, beams, device=self.parents.device)[:, None]
        if left is None:
            return continued.flatten()
        for name in ("tokens", "scores", "ended_scores", "ended", "best", "parents"):
            setattr(self, name, getattr(self, name)[left])
        return continued[left].flatten()

    def _end(self, texts: Tensor, scores: Tensor, ends: Tensor, length: int) -> None:
        """Keep the best of the candidates that end, of which only the likeliest, as many as there are beams, count."""
        beams = self.scores.shape[1]
        scores, texts, ends = scores[:, :beams], texts[:, :beams], ends[:, :beams]
        divided = scores / length**self.length_penalty + ~ends * LOWEST
        self.ended_scores, order = torch.cat([self.ended_scores, divided], dim=1).topk(beams)
        self.ended = torch.cat([self.ended, ends], dim=1).gather(1, order)
        first = order[:, :1] - beams  # negative where the best one is an earlier one
        text = _take(texts, first.clamp(min=0))[:, 0, -length:]
        self.best[:, :length] = torch.where(first < 0, self.best[:, :length], text)


def _take(tensor: Tensor, beams: Tensor) -> Tensor:
    """Some beams of each row: shape (rows, beams taken, tokens)."""
    return tensor.gather(1, beams[..., None].expand(-1, -1, tensor.shape[2]))
