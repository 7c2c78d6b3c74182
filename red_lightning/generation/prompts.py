"""Format and tokenize prompts as in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from red_lightning.adapters import Edited
from red_lightning.adapters.extensions import own_path
from red_lightning.adapters.record_checks import virtual_tokens_of
from red_lightning.data.control_tokens import require_embedded
from red_lightning.data.messages import Conversation, Message, asked, parted, require_conversation
from red_lightning.data.pairs import cut_before_end, ended
from red_lightning.data.prompt_templates import make_template, read_template
from red_lightning.data.template_base import Template, TemplateSettings
from red_lightning.errors import UsageError, nearest
from red_lightning.families.positions import positions_left

PromptStyle = Literal["source", "paper", "chat", "plain"]
"""``source``: a text and EOS, as data-to-text is trained; ``paper`` and ``chat``: a conversation in the templates of
instruction tuning; ``plain``: the text as it is, which the model continues."""

Prompt = str | list[Message] | Conversation
"""A text, or a conversation: dictionaries with ``role`` and ``content``, or a dictionary with these ``messages`` and
``tools``."""


@dataclass
class TemplateChanges:
    """Settings of a template that replace those of the training. null keeps the training's.

    Attributes:
        chat_template: File with a chat template (Jinja) in place of the tokenizer's own.
        template_options: Arguments of the chat template, such as ``{enable_thinking: false}`` of Qwen 3.
        fold_system: Put a system message before the text of the first user message.
        split_special_tokens: Read control tokens that a message spells, such as ``</s>``, as text.
    """

    chat_template: str | None = None
    template_options: dict[str, Any] | None = None
    fold_system: bool | None = None
    split_special_tokens: bool | None = None

    def of(self, settings: TemplateSettings) -> TemplateSettings:
        """Return the settings with the changes."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.chat_template is not None:
            given["chat_template"] = read_template(self.chat_template)
        return replace(settings, **given)


class Prompts:
    """Makes tokens of prompts.

    Args:
        edited: The model.
        style: How; None for how its edits were trained; for a model without edits ``chat`` if its tokenizer has a chat
            template, else ``plain``.
        overlong: What becomes of a prompt that is too long: ``refuse``, or ``cut`` (the end of a source, as in
            training; the beginning of anything else, so that half of the context is free).
        changes: Settings of the template that replace those of the training.

    Attributes:
        style: How.
        template: Writes conversations; None for a model that continues texts.
        stop_ids: The tokens of which each ends what is written, besides EOS.
        positions: The most tokens of a prompt and what follows it; None if there is no such limit.
        advice: What is said to do about a prompt that is too long.

    Raises:
        UsageError: The edits are a classifier's or damaged, or the tokenizer lacks the chat template.
    """

    def __init__(
        self,
        edited: Edited,
        style: PromptStyle | None,
        overlong: Literal["refuse", "cut"],
        changes: TemplateChanges | None = None,
    ) -> None:
        record, config = edited.record, edited.backbone.config
        if edited.head is not None or str(record.get("task")).endswith("Classification"):
            raise UsageError(
                f"these edits were trained to label texts (task {record.get('task')}), not to write them; use "
                "python -m red_lightning predict with the run's config, or without one red_lightning.load in Python"
            )
        if style is not None and style not in get_args(PromptStyle):
            raise UsageError(f"unknown template '{style}': {nearest(style, get_args(PromptStyle))}")
        self.tokenizer, self.config, self.overlong = edited.tokenizer, config, overlong
        self.style: PromptStyle = style or trained_style(record, self.tokenizer)
        data = record.get("data") or {}
        self.positions, said = positions_left(config, virtual_tokens_of(record, "this run"))
        self.limit = None if self.positions is None else self.positions - 1  # something must follow
        self.said, self.advice = f"the backbone has {said}", "shorten it"
        self.stop_ids: list[int] = []
        self.template: Template | None = None
        if self.style == "source":
            trained = data.get("max_source_length")
            if trained is not None:
                if type(trained) is not int or trained < 2:
                    raise UsageError(f"the edits are damaged: edits.json says {trained!r} for data.max_source_length")
                self.limit, self.said = trained, f"the edits were trained on sources of at most {trained}"
        elif self.style != "plain":
            settings = TemplateSettings.recorded(data if data.get("template") == self.style else {})
            settings = changes.of(settings) if changes else settings
            self.template = make_template(self.style, self.tokenizer, settings)
            self.stop_ids = self.template.stop_ids

        if self.template is None and changes is not None and changes != TemplateChanges():
            raise UsageError(
                f"template_settings are for conversations, but the template is {self.style}. Leave them out"
            )

    @property
    def converses(self) -> bool:
        """Whether a prompt may be a conversation."""
        return self.template is not None

    def require_system(self, system: str) -> None:
        """Refuse a system message that the template has no place for, before a conversation begins.

        Raises:
            UsageError: Names the setting that would help.
        """
        self.whole([[{"role": "system", "content": system}, {"role": "user", "content": "question"}]], ["--system"])

    def tokens(self, prompts: Sequence[Prompt], where: Sequence[str], room: int) -> list[list[int]]:
        """The tokens of each prompt, which are not too many.

        Args:
            prompts: The prompts.
            where: What an error calls each.
            room: How many new tokens are wanted.

        Raises:
            UsageError: A prompt is empty, too long, or cannot be rendered by the template.
        """
        encoded = self.whole(prompts, where)
        require_embedded(self.tokenizer, [{"tokens": row} for row in encoded], self.config, lambda n: where[n - 1])
        for number, row in enumerate(encoded):
            if self.limit is not None and len(row) > self.limit:
                if self.overlong == "refuse":
                    raise UsageError(f"{where[number]} has {len(row)} tokens, but {self.said}; {self.advice}")
                encoded[number] = self._cut(row, self.limit, room)
        return encoded

    def whole(self, prompts: Sequence[Prompt], where: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, however many.

        Args:
            prompts: The prompts.
            where: What an error calls each.

        Raises:
            UsageError: A prompt is empty, no UTF-8, a conversation where a text should be, or cannot be rendered.
        """
        for prompt, place in zip(prompts, where, strict=True):
            if not isinstance(prompt, str):
                require_conversation(parted(prompt)[0], place, may_ask=True)
                if not self.converses:
                    raise UsageError(
                        f"{place} is a conversation, but this model continues texts; give a text, or --template paper "
                        "or chat"
                    )
            elif not prompt.strip():
                raise UsageError(f"{place} is empty; fill it in or remove it")
            _require_encodable(prompt, place)
        if self.template is not None:
            rendered = [
                self.template.render(asked(messages), place, tools)
                for (messages, tools), place in zip(map(parted, prompts), where, strict=True)
            ]
            return [tokens for tokens, _ in self.template.tokenize(rendered)]
        texts = [str(prompt) for prompt in prompts]
        if self.style == "source":
            return ended(self.tokenizer, texts)
        return self.tokenizer(texts, verbose=False)["input_ids"]

    def _cut(self, tokens: list[int], limit: int, room: int) -> list[int]:
        if self.style == "source":
            return cut_before_end(tokens, limit)
        prefix = self.template.prefix if self.template else []
        kept = max(limit - min(room, limit // 2), len(prefix) + 1)
        return prefix + tokens[len(tokens) - kept + len(prefix) :]


def trained_style(record: Mapping[str, Any], tokenizer: Any) -> PromptStyle:
    """How prompts became tokens when edits were trained; for a model without edits the tokenizer's chat template.

    Args:
        record: The contents of ``edits.json``; empty for a model without edits.
        tokenizer: The model's tokenizer, which may have a chat template.

    Raises:
        UsageError: A task of the user's own trained them, and it extends none that writes.
    """
    if own_path(record, "task") and record.get("task") not in ("InstructionTuning", "DataToText"):
        raise UsageError(
            f"the edits were trained by the task '{own_path(record, 'task')}', so how a prompt becomes tokens is not "
            f"known; give --template {', '.join(get_args(PromptStyle)[:-1])} or plain (in Python template=)"
        )
    if not record and getattr(tokenizer, "chat_template", None):
        return "chat"
    if record.get("task") == "InstructionTuning":
        return "chat" if (record.get("data") or {}).get("template") == "chat" else "paper"
    return "source" if record.get("task") == "DataToText" else "plain"


def _require_encodable(prompt: Prompt, where: str) -> None:
    """Refuse what no tokenizer takes: bytes that were no UTF-8, which Python reads as lone surrogates."""
    for message in parted(prompt)[0]:
        try:
            str(message["content"]).encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{where} is no UTF-8 text; write character {error.start + 1} in UTF-8") from error
