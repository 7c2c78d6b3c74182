"""Real rows of the leaderboard's six benchmarks, as repositories of the hub."""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Splits = Mapping[str, Iterable[Row]]


def write_questions(folder: Path, shared: Path, count: int = 60, benchmarks: Iterable[str] = ()) -> Path:
    """Write the first rows of the benchmarks below a folder, laid out as on the hub.

    Args:
        folder: Where ``allenai/ai2_arc`` and so on go.
        shared: The folder of reference material.
        count: Rows of each split.
        benchmarks: Some of them; all without.
    """
    source = shared / "eval/open_llm"
    writers = {
        "arc": ("allenai/ai2_arc", _arc),
        "truthfulqa": ("truthfulqa/truthful_qa", _truthfulqa),
        "winogrande": ("allenai/winogrande", _winogrande),
        "gsm8k": ("openai/gsm8k", _gsm8k),
        "hellaswag": ("Rowan/hellaswag", _hellaswag),
        "mmlu": ("cais/mmlu", _mmlu),
    }
    for name in benchmarks or writers:
        repository, rows = writers[name]
        _write(folder / repository, rows(source / name, count))
    return folder


def write_hub(root: Path, shared: Path, count: int, benchmarks: Iterable[str] = ()) -> Path:
    """Benchmarks beside all that the stand-in for the hub serves else."""
    for owner in (shared / "hub").iterdir():
        if owner.is_dir():
            (root / owner.name).symlink_to(owner)
    return write_questions(root, shared, count, benchmarks)


def _write(repository: Path, configurations: Mapping[str, Splits]) -> None:
    header = []
    for name, splits in configurations.items():
        (repository / name).mkdir(parents=True)
        for split, rows in splits.items():
            lines = [json.dumps(row) for row in rows]
            (repository / name / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        files = [{"split": split, "path": f"{name}/{split}.jsonl"} for split in splits]
        header.append({"config_name": name, "data_files": files})
    text = f"---\n{json.dumps({'configs': header})}\n---\n"  # JSON is YAML
    (repository / "README.md").write_text(text, encoding="utf-8")


def _arc(folder: Path, count: int) -> dict[str, Splits]:
    """Easy's rows are not there: Challenge's validation split stands in."""
    train, validation = (_arc_table(folder / f"arc_challenge_{name}.csv", count) for name in ("train", "validation"))
    test = []
    for line in (folder / "ARC-Challenge-Test.jsonl").read_text(encoding="utf-8").splitlines()[:count]:
        row = json.loads(line)
        choices = row["question"]["choices"]
        texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
        question = {"id": row["id"], "question": row["question"]["stem"]}
        test.append({**question, "choices": {"text": texts, "label": labels}, "answerKey": row["answerKey"]})
    return {
        "ARC-Challenge": {"train": train, "validation": validation, "test": test},
        "ARC-Easy": {"train": train, "validation": train, "test": validation},
    }


def _arc_table(path: Path, count: int) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, (question, *texts, key) in zip(range(count), csv.reader(file), strict=False):
            labels = list("1234" if key.isdigit() else "ABCD")
            if key in labels:
                choices = {"text": texts, "label": labels}
                rows.append({"id": str(number), "question": question, "choices": choices, "answerKey": key})
    return rows


def _truthfulqa(folder: Path, count: int) -> dict[str, Splits]:
    rows = []
    for row in json.loads((folder / "mc_task.json").read_text(encoding="utf-8"))[:count]:
        targets = {
            name: {"choices": [*row[name]], "labels": [*row[name].values()]} for name in ("mc1_targets", "mc2_targets")
        }
        rows.append({"question": row["question"], **targets})
    return {"multiple_choice": {"validation": rows}}


def _winogrande(folder: Path, count: int) -> dict[str, Splits]:
    rows = []
    for row in json.loads((folder / "validation_reformatted.json").read_text(encoding="utf-8"))[: 2 * count]:
        found = re.search(r"sentence: (.*)\n\nOption1: (.*) Option2: (.*) Answer format", row["instruction"])
        assert found
        sentence, one, two = found.groups()
        rows.append({"sentence": sentence, "option1": one, "option2": two, "answer": row["answer"][-1]})
    return {"winogrande_xl": {"train": rows[count:], "validation": rows[:count]}}


def _gsm8k(folder: Path, count: int) -> dict[str, Splits]:
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"main": {"train": rows[count : 2 * count], "test": rows[:count]}}


def _hellaswag(folder: Path, count: int) -> dict[str, Splits]:
    table = json.loads((folder / "hellaswag_2k.json").read_text(encoding="utf-8"))
    train, validation = ([_ending(row) for row in table[split][:count]] for split in ("dev", "test"))
    return {"default": {"train": train, "validation": validation}}


def _ending(row: Row) -> Row:
    context, label = {"ctx_a": row["question"], "ctx_b": "", "ctx": row["question"]}, "ABCD".index(row["answer"])
    return {
        "ind": row["id"],
        "activity_label": "",
        **context,
        "endings": [*row["choices"].values()],
        "label": str(label),
    }


def _mmlu(folder: Path, count: int) -> dict[str, Splits]:
    configurations = {}
    for path in sorted((folder / "test").glob("*_test.csv")):
        subject = path.stem.removesuffix("_test")
        dev = folder / "dev" / f"{subject}_dev.csv"
        configurations[subject] = {"dev": _mmlu_table(dev, 5, subject), "test": _mmlu_table(path, count, subject)}
    return configurations


def _mmlu_table(path: Path, count: int, subject: str) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file)][:count]
    return [{"question": q, "subject": subject, "choices": c, "answer": "ABCD".index(key)} for q, *c, key in rows]
