"""A model as lm-eval calls it. Importing this file requires lm-eval."""

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from red_lightning.data.template_base import Template
from red_lightning.errors import UsageError

LONG = "sequence-length-is-longer-than-the-specified-maximum"
"""transformers' name of the warning that a text is longer than the model reads."""


class LanguageModel(HFLM):
    """A loaded model, edited or not, that answers lm-eval's requests.

    Log-probabilities are computed in float32, whatever the model's dtype: in bfloat16 the choices of a question tie.

    Args:
        backbone: A Hugging Face decoder or encoder-decoder, with the edits attached.
        tokenizer: Its tokenizer.
        batch_size: Requests at once; scores do not depend on it.
        max_length: The most tokens that the model reads; None for what its configuration says.
        progress: Show a bar.
        template: Writes questions that are asked in a chat template; None refuses them.
    """

    def __init__(
        self,
        backbone: Any,
        tokenizer: Any,
        batch_size: int = 8,
        max_length: int | None = None,
        progress: bool = False,
        template: Template | None = None,
    ) -> None:
        super().__init__(
            pretrained=backbone,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=max_length,
            softmax_dtype="float32",
        )
        tokenizer.deprecation_warnings[LONG] = True  # as if it had warned: what is too long is cut, and counted
        self.progress, self.template = progress, template
        self.shortened = 0
        """How many prompts were longer than the model reads, and lost their beginning."""

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        # the last token is not read
        self.shortened += sum(len(prompt) + len(answer) > self.max_length + 1 for _, prompt, answer in requests)
        return super()._loglikelihood_tokens(requests, not self.progress, override_bs)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as text: up to where the answer begins, or with the beginning of the answer."""
        if self.template is None:
            raise UsageError("the model has no template for conversations")
        asked = chat_history if add_generation_prompt else chat_history[:-1]
        text, _ = self.template.write(asked, "a question", None)
        return text if add_generation_prompt else f"{text}{chat_history[-1]['content']}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return a name of the template, for lm-eval's records."""
        return type(self.template).__name__ if self.template and chat_template else None

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue each prompt until a stop sequence, or the most new tokens that its task allows."""
        return super().generate_until(list(requests), not self.progress)

    def tok_batch_encode(self, strings: Sequence[str], *args: Any, **options: Any) -> Any:
        """The prompts of a batch as tokens, padded on the left."""
        room = options.get("left_truncate_len")
        if room is not None:
            self.shortened += sum(len(self.tok_encode(text)) > room for text in strings)
        return super().tok_batch_encode(list(strings), *args, **options)
