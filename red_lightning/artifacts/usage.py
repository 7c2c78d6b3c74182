"""The part of a model card that says how to load what was pushed."""

from collections.abc import Mapping
from typing import Any

from red_lightning.artifacts.merged import Merged

LOAD = """\
import red_lightning

backbone, tokenizer, head, record = red_lightning.load("{name}")
"""

CLASSIFY = """\
inputs = tokenizer(["a text"], return_tensors="pt")
with torch.no_grad():
    logits = head(pool(backbone(**inputs), inputs["attention_mask"], record["head"]["pooling"]))
"""

ENCODE = """\
inputs = tokenizer(["a text"], return_tensors="pt")
hidden = backbone(**inputs).last_hidden_state
"""

PLAIN = """\
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {auto}.from_pretrained("{name}")
"""

TALK = """\
python -m red_lightning generate {name} --prompt "{prompt}"
python -m red_lightning chat {name}
"""

WRITE = """\
python -m red_lightning generate {name} --prompt "{prompt}"
"""


def how_to_load(name: str, record: Mapping[str, Any], merged: Merged | None) -> str:
    """Lines of Python or of a shell that load what was pushed and use it.

    Args:
        name: The hub id.
        record: The contents of ``edits.json``.
        merged: The merged model, which plain transformers loads; None for edits.
    """
    return _merged(name, record, merged) if merged else _edits(name, record)


def loading_line(name: str, merged: Merged | None, revision: str | None = None) -> str:
    """The expression that loads what was pushed.

    Args:
        name: The hub id.
        merged: The merged model; None for edits.
        revision: The branch; None for main.
    """
    arguments = f'"{name}"' + (f', revision="{revision}"' if revision else "")
    return f"{f'{merged.auto}.from_pretrained' if merged else 'red_lightning.load'}({arguments})"


def _edits(name: str, record: Mapping[str, Any]) -> str:
    load = LOAD.format(name=name)
    if record.get("head"):
        imports = "import torch\n\nimport red_lightning\nfrom red_lightning.backbones.head import pool\n"
        label = (
            "value = logits.item()" if not record.get("labels") else 'label = record["labels"][int(logits.argmax())]'
        )
        return _code("python", load.replace("import red_lightning\n", imports) + f"\n{CLASSIFY}{label}\n")
    match record.get("task"):
        case "Classification":
            return _code("python", f"{load}\n{ENCODE}")
        case "InstructionTuning":
            talk = TALK.format(name=name, prompt="Name three colours.")
        case "DataToText":
            talk = WRITE.format(name=name, prompt="name[Aromi], food[Chinese]")
        case "TextToTextClassification":
            return (
                f"{_code('python', load)}\n\n`backbone.generate` writes the {record.get('targets', 'name')} of a label."
            )
        case _:
            return _code("python", load)
    return f"{_code('bash', talk)}\n\nor in Python, where `backbone.generate` writes:\n\n{_code('python', load)}"


def _merged(name: str, record: Mapping[str, Any], merged: Merged) -> str:
    parts = [_code("python", PLAIN.format(name=name, auto=merged.auto)), *(f"{each}." for each in merged.notes)]
    if record.get("task") == "DataToText":
        parts.append("The model writes after its input and one end-of-sequence token (`tokenizer.eos_token`).")
    return "\n\n".join(parts)


def _code(language: str, lines: str) -> str:
    return f"```{language}\n{lines.strip()}\n```"
