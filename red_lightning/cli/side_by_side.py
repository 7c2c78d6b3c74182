"""The page of ``generate --compare``: what several models answer to the same prompts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from red_lightning.artifacts.files import write_whole
from red_lightning.errors import UsageError, cannot_write
from red_lightning.generation import Prompt, Writer
from red_lightning.generation.files import Question
from red_lightning.generation.models import read_record
from red_lightning.generation.page import Column, html_page, markdown_page

PAGES = {".html": html_page, ".md": markdown_page}

Model = tuple[str | None, bool]
"""A run, and whether its edits are attached."""


def write_page(
    models: Sequence[Model],
    open_writer: Callable[[str | None, bool], Writer],
    read: Callable[[Writer], list[Question]],
    output: Path | None,
) -> None:
    """Let each model answer, one after the other, and write the page.

    Args:
        models: The models, in the order of the columns.
        open_writer: Loads one.
        read: The prompts, as the first model reads them.
        output: The page; its ending says the format.

    Raises:
        UsageError: The page has no name or another ending, or cannot be written.
    """
    if output is None or output.suffix.lower() not in PAGES:
        raise UsageError("--compare writes a page: give --output a name that ends in .html or .md")
    for place, _ in models:
        read_record(place)  # what is not there is said before anything is written
    questions: list[Question] = []
    columns: list[Column] = []
    for place, edited in models:
        writer = open_writer(place, edited)
        questions = questions or read(writer)
        column = _column(place, edited, writer, questions)
        if column.name in (other.name for other in columns):
            column = replace(column, name=f"{column.name} ({place})")
        columns.append(column)
        print(f"{columns[-1].name}: {len(questions)} texts", flush=True)
        del writer  # one backbone at a time
    note = "Each model decodes as its run did, unless the command said otherwise."
    prompts = [_shown(question.prompt) for question in questions]
    page = PAGES[output.suffix.lower()]("Answers side by side", note, prompts, columns)
    try:
        write_whole(output, page)
    except OSError as error:
        raise cannot_write(f"'{output}'", error, "give another --output") from error
    print(f"wrote {output}")


def _column(place: str | None, edited: bool, writer: Writer, questions: Sequence[Question]) -> Column:
    record: dict[str, Any] = writer.edited.record
    tokens = writer.encode([question.prompt for question in questions], [question.where for question in questions])
    texts = {index: text for batch in writer.batches(tokens) for index, text in batch.items()}
    answers = [texts[index] for index in range(len(questions))]
    backbone = str(record.get("backbone") or place)
    if not record or not edited:
        return Column("unedited" if record else Path(backbone).name, "unedited", None, backbone, answers)
    folder = Path(str(place)).resolve()
    name = folder.parent.name if folder.name == "edits" else folder.name
    return Column(name, record["method"]["name"], record.get("trainable_parameters"), backbone, answers)


def _shown(prompt: Prompt) -> str:
    """A prompt as text; of a conversation, who says what."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
