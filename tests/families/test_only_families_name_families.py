"""What is true of a model family is in its record: no other package names a family."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

import red_lightning
from red_lightning.families import ARCHITECTURES
from red_lightning.families.unsupported import UNSUPPORTED

PACKAGE = Path(red_lightning.__file__).parent
EXEMPT = {
    "families": "the records",
    "benchmark": "builds models of published shapes to measure them",
    "quickstart": "pretrains a GPT-2 of its own",
}
MODEL_TYPES = {name for record in ARCHITECTURES for name in record.model_types}
NAMES = {*MODEL_TYPES, *UNSUPPORTED, *(record.name for record in ARCHITECTURES)}
STEMS = {CONFIG_MAPPING_NAMES[name].removesuffix("Config") for name in MODEL_TYPES if name in CONFIG_MAPPING_NAMES}
CLASS = re.compile(
    rf"(?:Liger)?(?:{'|'.join(sorted(map(re.escape, STEMS), key=len, reverse=True))})"
    r"(?:Config|Model|For[A-Z]\w*|LMHeadModel|\w*(?:Layer|Block|Attention|MLP|RMSNorm))"
)
MODULE = re.compile(r"transformers\.models\.(?!auto\b)\w+")


def named(code: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each name of a family, of its classes and of its modules; docstrings may."""
    tree = ast.parse(code)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found = [node.value] if node.value in NAMES or CLASS.fullmatch(node.value) else []
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module] if MODULE.match(node.module) else []
            found += [alias.name for alias in node.names if CLASS.fullmatch(alias.name)]
        elif isinstance(node, ast.Attribute) and CLASS.fullmatch(node.attr):
            found = [node.attr]
        yield from ((node.lineno, text) for text in found)  # type: ignore[attr-defined]


def test_no_other_package_names_a_family() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{line} {text}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] not in EXEMPT
        for line, text in named(file.read_text(encoding="utf-8"))
    ]
    assert not found, "move what is true of a family into its record (red_lightning/families)"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ('if config.model_type == "gpt2": pass', "gpt2"),
        ('family in ("BERT", "other")', "BERT"),
        ('unsupported = {"mamba"}', "mamba"),
        ("from transformers import LlamaConfig", "LlamaConfig"),
        ('reads = ("Phi3ForCausalLM",)', "Phi3ForCausalLM"),
        ("transformers.GPT2LMHeadModel", "GPT2LMHeadModel"),
        ("from transformers.models.bert import modeling_bert", "transformers.models.bert"),
    ],
)
def test_a_name_is_found(code: str, text: str) -> None:
    assert [*named(code)] == [(1, text)]


def test_words_that_name_no_family_are_free() -> None:
    code = '"""For gpt2."""\nfrom transformers import AutoModel, PreTrainedModel\nx = "a decoder such as GPT-2"\n'
    assert [*named(code)] == []
