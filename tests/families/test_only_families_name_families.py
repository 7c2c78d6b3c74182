"""What is true of a model family is in its record: no other package names a model type."""

import ast
from pathlib import Path

import red_lightning
from red_lightning.families import ARCHITECTURES

PACKAGE = Path(red_lightning.__file__).parent
ALLOWED = {
    ("adapters/importing.py", "gpt2"),  # the authors trained it on data-to-text, every other decoder on instructions
    ("export/equivalents.py", "gpt2"),  # a field of its configuration that servers read under its older name
}


def test_no_other_package_names_a_model_type() -> None:
    types = {name for record in ARCHITECTURES for name in record.model_types}
    found = set()
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.parts[0] in ("families", "benchmark", "quickstart"):  # these build models of their own
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in types:
                found.add((place.as_posix(), node.value))
    assert found == ALLOWED
