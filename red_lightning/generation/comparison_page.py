"""A page with the answers of several models to the same prompts (paper, Figures 3 and 4)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #1c1c1c; background: #fff; }
h1 { font-size: 1.4rem; }
section { margin: 2rem 0; }
.prompt { background: #eef2f7; border-left: 4px solid #4a6fa5; padding: .7rem 1rem; margin: .5rem 0 1rem; }
.answers { display: grid; grid-template-columns: repeat(COLUMNS, minmax(16rem, 1fr)); gap: 1rem; overflow-x: auto; }
.answers article { border: 1px solid #d5d9e0; border-radius: 6px; padding: .7rem 1rem; }
.answers h3 { margin: 0; font-size: 1rem; }
.detail { color: #5a6270; font-size: .85rem; margin: 0 0 .7rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Column:
    """What one model answered.

    Attributes:
        name: What it is called.
        method: How it was adapted; ``unedited`` if it was not.
        parameters: How many numbers that trained; None if it is not known.
        backbone: Its backbone.
        answers: One for each prompt.
    """

    name: str
    method: str
    parameters: int | None
    backbone: str
    answers: Sequence[str]

    @property
    def detail(self) -> str:
        """Method, trained parameters and backbone, in words."""
        trained = "" if self.parameters is None else f" · {self.parameters:,} trained parameters"
        return f"{self.method}{trained} · {self.backbone}"


def html_page(title: str, note: str, prompts: Sequence[str], columns: Sequence[Column]) -> str:
    """The page, which needs no other file and runs nothing.

    Args:
        title: Its title.
        note: A line below it, such as how the answers were decoded.
        prompts: The prompts.
        columns: The models.
    """
    sections = []
    for number, prompt in enumerate(prompts):
        articles = "\n".join(
            f'<article><h3>{escape(column.name)}</h3><p class="detail">{escape(column.detail)}</p>\n'
            f'<div class="text">{escape(column.answers[number])}</div></article>'
            for column in columns
        )
        sections.append(
            f'<section><h2>{number + 1}</h2>\n<div class="prompt text">{escape(prompt)}</div>\n'
            f'<div class="answers">\n{articles}\n</div></section>'
        )
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE.replace('COLUMNS', str(len(columns)))}</style></head><body>",
            f'<h1>{escape(title)}</h1>\n<p class="detail">{escape(note)}</p>',
            *sections,
            "</body></html>\n",
        ]
    )


def markdown_page(title: str, note: str, prompts: Sequence[str], columns: Sequence[Column]) -> str:
    """The same as Markdown: a table below each prompt. The arguments are those of :func:`html_page`."""
    lines = [f"# {_plain(title)}", "", _plain(note), ""]
    heads = [f"**{_plain(column.name)}**<br>{_plain(column.detail)}" for column in columns]
    for number, prompt in enumerate(prompts):
        cells = [_plain(column.answers[number]) for column in columns]
        lines += [f"## {number + 1}", "", f"> {_plain(prompt)}", "", _row(heads), _row(["---"] * len(columns))]
        lines += [_row(cells), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line of its source."""
    lines = [re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:@])", r"\\\1", escape(line, quote=False)) for line in text.splitlines()]
    return "<br>".join(line or "&nbsp;" for line in lines)
