"""The page shows every text as it is, whatever is in it."""

import re
from html.parser import HTMLParser

import pytest

from red_lightning.generation.comparison_page import Column, html_page, markdown_page

NASTY = (
    "<script>alert(1)</script> & \"quotes\" 'n' </div>\n\n| a | b |\n# *not* `a` _heading_ [x](javascript:y) ![i](z)"
)
PROMPTS = ["How do I sew a button?", NASTY]
COLUMNS = [
    Column("red", "RED", 262144, "meta-llama/Llama-2-7b-hf", ["Thread the needle.", NASTY]),
    Column("<b>lora</b>", "LoRA", 8388608, "meta-llama/Llama-2-7b-hf", ["No.", ""]),
    Column("unedited", "unedited", None, "meta-llama/Llama-2-7b-hf", ["", "x | y"]),
]


class Reader(HTMLParser):
    """Collects the tags, and the texts inside elements of a class."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta",):
            name = dict(attrs).get("class") or tag
            self.open.append((tag, name))
            self.texts.setdefault(name, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1][1]][-1] += data


def test_the_html_page_holds_every_text_as_it_is() -> None:
    reader = Reader()
    page = html_page("Side & side", "greedy", PROMPTS, COLUMNS)
    reader.feed(page)
    assert reader.open == []
    assert not {"script", "b", "img", "a", "link"} & {*reader.tags}  # nothing runs, nothing is loaded
    assert reader.texts["prompt text"] == PROMPTS
    assert reader.texts["text"] == [column.answers[row] for row in range(2) for column in COLUMNS]
    assert reader.texts["h3"] == ["red", "<b>lora</b>", "unedited"] * 2
    assert reader.texts["detail"][1] == "RED · 262,144 trained parameters · meta-llama/Llama-2-7b-hf"
    assert "repeat(3," in page and "http" not in page


def test_the_markdown_page_has_a_table_for_each_prompt() -> None:
    lines = markdown_page("Side by side", "greedy", PROMPTS, COLUMNS).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 3 * len(PROMPTS)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == len(COLUMNS) + 1 for line in tables)
    assert "262,144 trained parameters" in tables[0]
    assert "<script" not in "".join(lines)
    assert [line for line in lines if line.startswith("## ")] == ["## 1", "## 2"]


def test_markdown_shows_what_was_written() -> None:
    renderer = pytest.importorskip("markdown_it")  # comes with rich
    html = renderer.MarkdownIt("commonmark").enable("table").render(markdown_page("t", "n", PROMPTS, COLUMNS))
    assert "<script" not in html and "<em>" not in html and "<a " not in html and "<img" not in html
    cells = re.findall(r"<td>(.*?)</td>", html, flags=re.DOTALL)
    shown = [
        cell.replace("<br>", "\n").replace("&nbsp;", "").replace("&lt;", "<").replace("&gt;", ">") for cell in cells
    ]
    shown = [cell.replace("&quot;", '"').replace("\xa0", "").replace("&amp;", "&") for cell in shown]
    assert shown == [column.answers[row] for row in range(2) for column in COLUMNS]
