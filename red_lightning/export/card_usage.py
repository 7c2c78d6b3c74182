"""The usage section of a model card."""

from collections.abc import Mapping
from typing import Any

from red_lightning.adapters.extensions import own_path, trust_options
from red_lightning.export.merged_checkpoint import Merged

LOAD = """\
import red_lightning

backbone, tokenizer, head, record = {load}
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

tokenizer = AutoTokenizer.from_pretrained({arguments})
model = {auto}.from_pretrained({arguments})
"""

GENERATE = """\
python -m red_lightning generate {name} --prompt "{prompt}"
"""

CHAT = """\
python -m red_lightning chat {name}
"""

WRITE = """\
import red_lightning
from red_lightning.generation import Writer

writer = Writer({load})
print(writer.write(["{prompt}"])[0])
"""


def how_to_load(name: str, record: Mapping[str, Any], merged: Merged | None, revision: str | None = None) -> str:
    """Lines of Python or of a shell that load what was pushed and use it.

    Args:
        name: The hub id.
        record: The contents of ``edits.json``.
        merged: The merged model, which plain transformers loads; None for edits.
        revision: The branch; None for main.
    """
    if merged:
        return _merged(name, record, merged, revision)
    return _edits(name, record, revision) + (f"\n\n{_consent(record)}" if trust_options(record) else "")


def loading_line(name: str, record: Mapping[str, Any], merged: Merged | None, revision: str | None = None) -> str:
    """The expression that loads what was pushed.

    Args:
        name: The hub id.
        record: The contents of ``edits.json``.
        merged: The merged model; None for edits.
        revision: The branch; None for main.
    """
    if merged:
        return f"{merged.auto}.from_pretrained({_arguments(name, revision)})"
    trust = "".join(f', trust=["{package}"]' for package in trust_options(record))
    return f"red_lightning.load({_arguments(name, revision)}{trust})"


def _arguments(name: str, revision: str | None) -> str:
    return f'"{name}"' + (f', revision="{revision}"' if revision else "")


def _edits(name: str, record: Mapping[str, Any], revision: str | None) -> str:
    expression = loading_line(name, record, None, revision)
    load = LOAD.format(load=expression)
    name += f" --revision {revision}" if revision else ""  # of a command
    name += "".join(f" --trust {package}" for package in trust_options(record))
    if record.get("head"):
        imports = "import torch\n\nimport red_lightning\nfrom red_lightning.backbones.classification_head import pool\n"
        label = (
            "value = logits.item()" if not record.get("labels") else 'label = record["labels"][int(logits.argmax())]'
        )
        return _code("python", load.replace("import red_lightning\n", imports) + f"\n{CLASSIFY}{label}\n")
    match record.get("task"):
        case "Classification":
            return _code("python", f"{load}\n{ENCODE}")
        case "InstructionTuning":
            commands, prompt = GENERATE + CHAT, "Name three colours."
        case "DataToText":
            commands, prompt = GENERATE, "name[Aromi], food[Chinese]"
        case "TextToTextClassification":
            return (
                f"{_code('python', load)}\n\n`backbone.generate` writes the {record.get('targets', 'name')} of a label."
            )
        case _:
            return _code("python", load)
    shell, python = commands.format(name=name, prompt=prompt), WRITE.format(load=expression, prompt=prompt)
    return f"{_code('bash', shell)}\n\nor in Python:\n\n{_code('python', python)}"


def _consent(record: Mapping[str, Any]) -> str:
    """What a reader needs for a method that is not part of red_lightning."""
    (package,) = trust_options(record)
    return (
        f"The method is `{own_path(record, 'method')}`: Python code that is neither in this repository nor part of "
        f"red_lightning. Install the package `{package}` from a place that you trust. `--trust {package}` (in Python "
        "`trust=`) allows red_lightning to import it, which runs its code."
    )


def _merged(name: str, record: Mapping[str, Any], merged: Merged, revision: str | None) -> str:
    parts = [_code("python", PLAIN.format(arguments=_arguments(name, revision), auto=merged.auto))]
    parts += [f"{each[0].upper()}{each[1:]}." for each in merged.notes]
    if record.get("task") == "DataToText":
        parts.append("The model writes after its input and one end-of-sequence token (`tokenizer.eos_token`).")
    return "\n\n".join(parts)


def _code(language: str, lines: str) -> str:
    return f"```{language}\n{lines.strip()}\n```"
