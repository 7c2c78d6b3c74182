"""Base of the instruction-tuning data modules: conversations of a user and an assistant."""

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from red_lightning.data.collation import Batch, collate_for_decoding
from red_lightning.data.hub_rows import Row
from red_lightning.data.messages import asked, first_prompt, is_learned, require_conversation, texts_of
from red_lightning.data.packing import collate_packed, collate_padded
from red_lightning.data.padding_note import Way, padding_note
from red_lightning.data.prompt_templates import TemplateName, make_template, read_template
from red_lightning.data.row_data_module import Encoded, RowsDataModule, Split
from red_lightning.data.subsets import hold_out, require_size
from red_lightning.data.template_base import Answer, TemplateSettings, known_settings, learned_spans
from red_lightning.errors import UsageError, require_range

AT_ONCE = 1000
"""Rows that are tokenized together: lists of Python's numbers are large."""


class ConversationsDataModule(RowsDataModule):
    """Base of the instruction-tuning data modules. A subclass reads the conversations of a split.

    A conversation is a dictionary with ``messages`` (each with a ``role``, system, user or assistant, and its
    ``content``), ``row`` (its number in the source) and ``where`` (its name in errors). Training, validation and test
    use the loss. Prediction answers the last user message.

    Args:
        global_batch_size: Rows per optimizer step, over all processes and accumulated micro-batches.
        micro_batch_size: Rows per forward pass of a process (with ``packing``: on average). Accumulation follows from
            it. null is the process' whole share of the global batch.
        eval_batch_size: Rows per batch and process in validation, test and prediction. Scores do not depend on it.
        template: Prompt format: ``paper`` is ``Human: {prompt}``, a blank line, ``Assistant: {answer}`` and EOS;
            ``chat`` is the chat template of the backbone's tokenizer. null is that of the checkpoint, or ``paper``.
        loss_on: Tokens with a loss: the ``answer``, or ``all`` tokens but the first (authors' code) and answers of the
            weight 0.
        max_length: Maximum number of tokens of a conversation (paper: 768; authors' code: 512). Prompts to answer may
            be longer.
        overlong: Longer conversations: ``drop`` them (authors' code) or ``cut`` them at the end. Those without an
            answer within ``max_length`` are always dropped. Dropped rows are counted.
        validation_size: Number or share (such as 0.05) of the training rows held out for validation if there are no
            validation rows, chosen by the seed. Rows with the same prompt stay together.
        packing: Pack the rows of a micro-batch into one sequence without padding. The loss is the same.
        chat_template: File with a chat template (Jinja) in place of the tokenizer's own, for ``template`` chat.
        template_options: Arguments of the chat template, such as ``{enable_thinking: false}`` of Qwen 3.
        fold_system: Put a system message before the text of the first user message, for chat templates without a
            system role (Mistral, Gemma). null is as in the checkpoint, or false.
        split_special_tokens: Read control tokens that a message spells (``</s>``, ``<|im_end|>``) as text. false reads
            them as control tokens. null is as in the checkpoint, or true.
        **options: Those of :class:`RowsDataModule`.
    """

    examples = "UltraFeedback or Instructions"

    def __init__(
        self,
        global_batch_size: int = 128,
        micro_batch_size: int | None = None,
        eval_batch_size: int = 8,
        template: TemplateName | None = None,
        loss_on: Literal["answer", "all"] = "answer",
        max_length: int = 768,
        overlong: Literal["drop", "cut"] = "drop",
        validation_size: int | float = 0.05,
        packing: bool = False,
        chat_template: str | None = None,
        template_options: dict[str, Any] | None = None,
        fold_system: bool | None = None,
        split_special_tokens: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(global_batch_size, micro_batch_size, eval_batch_size, **options)
        require_range("data.max_length", max_length, 2)
        require_size("data.validation_size", validation_size)
        self.loss_on, self.max_length, self.overlong = loss_on, max_length, overlong
        self.validation_size, self.packing = validation_size, packing
        written = None if chat_template is None else read_template(chat_template)
        given = {
            "template": template,
            "chat_template": written,
            "template_options": template_options,
            "fold_system": fold_system,
            "split_special_tokens": split_special_tokens,
        }
        self._given = {name: value for name, value in given.items() if value is not None}
        self.template: TemplateName = template or "paper"
        self.settings = TemplateSettings()
        self.dropped: dict[str, int] = {}
        self.stop_ids: list[int] = []

    def connect(self, tokenizer: Any, encoder_decoder: bool) -> None:
        """Take the tokenizer of the backbone; ``stop_ids`` are then the tokens that end an answer.

        Raises:
            UsageError: The backbone is no decoder, or its tokenizer lacks the chat template that is asked for.
        """
        super().connect(tokenizer, encoder_decoder)
        if encoder_decoder:
            raise UsageError("conversations need a decoder such as Llama, but the backbone is an encoder-decoder")
        known = known_settings(getattr(self._task, "encoding", {}), self._given)
        self.template, self.settings = known.get("template", "paper"), TemplateSettings.recorded(known)
        self._template = make_template(self.template, tokenizer, self.settings)
        self.stop_ids = self._template.stop_ids

    @property
    def encoding(self) -> dict[str, Any]:
        """The template with its settings, and the maximum length."""
        return {"template": self.template, **self.settings.changed, "max_length": self.max_length}

    def check(self, split: Split, rows: list[Row]) -> None:
        """Refuse what is no conversation."""
        for row in rows:
            require_conversation(row["messages"], row["where"], may_ask=split == "predict")
            if self.loss_on == "all" and any(not is_learned(m) for m in row["messages"] if m["role"] != "assistant"):
                raise UsageError(
                    f"{row['where']} has a message with the weight 0 that is no answer, but data.loss_on all learns "
                    "all but such answers. Give --data.loss_on answer"
                )

    def divide(self, rows: list[Row], sizes: dict[str, int | float]) -> dict[str, list[Row]]:
        """Hold rows out of the training rows, those with the same prompt together.

        Args:
            rows: All of them.
            sizes: How many rows, or which share of them, each other split gets.

        Returns:
            The rows of ``train`` and of each other split.
        """
        parts = hold_out([first_prompt(row["messages"]) for row in rows], sizes, self.seed)
        return {split: [rows[index] for index in part] for split, part in parts.items()}

    def encode(self, split: Split, rows: list[Row]) -> list[Encoded]:
        """Tokens of a split: of the conversations within the limit, or of all prompts where they are answered."""
        self.dropped[split] = 0
        if split == "predict":
            self.asked = {row["row"]: [{key: row[key] for key in ("row", "id") if key in row}] for row in rows}
        encoded = []
        for first in range(0, len(rows), AT_ONCE):
            some, rendered = [], []
            for row in rows[first : first + AT_ONCE]:
                messages = asked(row["messages"]) if split == "predict" else row["messages"]
                with self.report.used_row(row.get("file", "")):
                    rendered.append(self._template.render(messages, row["where"], row.get("tools")))
                    some.append(row)
            for row, (tokens, answers) in zip(some, self._template.tokenize(rendered), strict=True):
                prompts_only = split == "predict"
                example = _question(row, tokens) if prompts_only else self._example(split, row, tokens, answers)
                if example is not None:
                    encoded.append({"row": row["row"], **example})
        if not encoded:
            cut = "" if self.overlong == "cut" else ", or give --data.overlong cut"
            raise UsageError(
                f"every row of the {split} split is longer than data.max_length {self.max_length} tokens; raise it{cut}"
            )
        return encoded

    def length(self, row: Encoded) -> int:
        """Tokens of a conversation, or of a prompt to answer."""
        return len(row["tokens"])

    def weight(self, row: Encoded) -> int:
        """Number of labels."""
        return sum(end - start for start, end in row["learned"])

    def collate(self, split: Split) -> Callable[[list[Encoded]], Batch]:
        """Batches of prompts in prediction, and for the loss elsewhere."""
        if split == "train" and self.packing:
            return collate_packed
        collate = collate_prompts if split == "predict" else collate_padded
        return partial(collate, pad_id=self.tokenizer.pad_token_id)

    def prompts(self, split: Split, count: int) -> Batch:
        """The first prompts of a split that was read (any but train), to show what the model answers.

        Args:
            split: Name of the split.
            count: Number of prompts.

        Returns:
            What :func:`collate_prompts` makes of them.
        """
        return collate_prompts(self._encoded[split][:count], self.tokenizer.pad_token_id)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt to answer; ``max_length`` does not limit it."""
        return max(map(self.length, self._encoded["predict"]))

    @property
    def notes(self) -> list[str]:
        """What to know before training: tokens, labels, padding, and how many rows are left out."""
        lines = super().notes
        for split, rows in self._encoded.items():
            tokens, labels = sum(map(self.length, rows)), sum(map(self.weight, rows))
            longest = max(map(self.length, rows))
            if split != "predict":
                lines.append(f"{split}: {tokens:,} tokens, {labels:,} of them labels; the longest row has {longest:,}")
        if "train" in self._encoded:
            lengths = [self.length(row) for row in self._encoded["train"]]
            sizes = self.global_batch_size, self.micro_batch_size
            way: Way = "packed" if self.packing else "grouped" if self.group_by_length else "plain"
            lines.append(padding_note(lengths, *sizes, self.seed, self._rank()[1], way))
        lines += [
            f"the chat template leaves out '{key}' of {count:,} messages (earlier turns, or links of a tool's result)"
            for key, count in self._template.left_out.items()
        ]
        for split, count in self.dropped.items():
            if count:
                lines.append(
                    f"rows of the {split} split left out, as they do not fit into {self.max_length} tokens: {count:,}"
                )
        return lines

    def provenance(self) -> dict[str, Any]:
        """Where the data come from, how they became texts, and how many rows were left out or cut."""
        counts = {"left_out": self.dropped, "cut": self.cut}
        return {**super().provenance(), "template": self.template, **self.settings.changed, **counts}

    def _example(self, split: Split, row: Row, tokens: list[int], answers: list[Answer]) -> dict[str, Any] | None:
        """A conversation within the limit; None if it is left out."""
        limit = self.max_length
        kept = [answer for answer in answers if answer.start < limit]
        spans = learned_spans(kept, len(tokens), everything=self.loss_on == "all")
        if len(tokens) > limit and (self.overlong == "drop" or not kept or not spans):
            self.dropped[split] += 1
            return None
        self.cut[split] += len(tokens) > limit
        learned = [(start, min(end, limit)) for start, end in spans if start < limit]
        texts: dict[str, Any] = {} if split == "train" else texts_of(row["messages"][: kept[-1].message + 1])
        return {"tokens": _compact(tokens[:limit]), "prompt": kept[-1].start, "learned": learned, **texts}


def _question(row: Row, tokens: list[int]) -> dict[str, Any]:
    """A prompt to answer."""
    return {"tokens": _compact(tokens), "prompt": len(tokens), "learned": [], **texts_of(row["messages"])}


def _compact(tokens: list[int]) -> "array[int]":
    return array("i", tokens)  # a list takes 36 bytes a token


def collate_prompts(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """A batch of prompts to answer.

    Args:
        rows: Dictionaries with ``row``, ``tokens``, ``prompt`` (the number of tokens before the last answer), ``text``
            and ``references``.
        pad_id: The padding token.

    Returns:
        What :func:`~red_lightning.data.collation.collate_for_decoding` gives, padded on the left.
    """
    sources = [{**row, "source": row["tokens"][: row["prompt"]]} for row in rows]
    return collate_for_decoding(sources, pad_id, encoder_decoder=False)
