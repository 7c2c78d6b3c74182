"""The model card of an adapter or a merged model."""

import math
from collections.abc import Mapping
from typing import Any

from red_lightning import hub
from red_lightning.adapters.file_format import HEAD
from red_lightning.export.card_metadata import TASKS, About, metadata, tested_on
from red_lightning.export.card_usage import how_to_load
from red_lightning.export.markdown import cell, is_number, link, listed, number, table


def write_card(about: About) -> str:
    """The card as ``README.md`` holds it: what was edited, on what data, how, how well, and how to load it."""
    sections = {
        "": _opening(about),
        "What was edited": table(_edited(about)),
        "Where the edits are from": _origin(about.record),
        "Data": table(_data(about.record.get("data") or {}, about.record.get("held_out_by") or {})),
        "Training": table(_training(about)),
        "Results": _results(about),
        "How to load": how_to_load(about.repository, about.record, about.merged, about.branch),
        "Versions": ", ".join(f"{name} {cell(each)}" for name, each in (about.record.get("libraries") or {}).items()),
        "Licence": _licence(about),
        "Citation": f"```bibtex\n{about.kind.citation}\n```" if about.kind.citation else "",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text)
    return f"---\n{metadata(about).to_yaml().strip()}\n---\n\n{body}\n"


def _opening(about: About) -> str:
    what = TASKS.get(about.record.get("task") or "", (None, "was adapted"))[1]
    if about.pipeline == "feature-extraction":
        what = "gives hidden states of texts, for a classification head"
    if about.merged:
        kind = f"The model {link(about.record['backbone'])}" if "/" in about.record["backbone"] else "A model"
        first = f"{kind} with {about.method} merged into its weights: a standard checkpoint, which {what}."
    else:
        first = f"Edits of {about.method} for {about.backbone} (not in here). With them, that model {what}."
    return f"# {about.repository.rpartition('/')[2]}\n\n{first} {about.kind.summary}".rstrip()


def _edited(about: About) -> dict[str, Any]:
    """The rows of the table that says what was edited."""
    record, learned = about.record, {name: s for name, s in about.shapes.items() if not name.startswith(HEAD)}
    options = {name: value for name, value in record["method"].items() if name not in ("name", "layers", "sites")}
    depth = (record.get("architecture") or {}).get("num_hidden_layers")
    sites, layers = record["method"].get("sites"), record["method"].get("layers")
    count = sum(math.prod(shape) for shape in learned.values())
    kind = "vectors" if learned and all(len(shape) == 1 for shape in learned.values()) else "tensors"
    share = f", {count / about.whole:.4%} of the backbone's {about.whole:,}" if about.whole else ""
    head = record.get("head")
    rows = {
        "backbone": about.backbone,
        "commit of the backbone": record.get("commit"),
        "quantized to": record.get("quantization"),
        "method": about.method,
        **{f"class of the {part}": path and f"`{path}`" for part, path in (record.get("classes") or {}).items()},
        "sites": sites,
        "layers": (layers or (f"all {depth}" if depth else "all")) if "layers" in record["method"] else None,
        **{name: value for name, value in options.items() if value is not None},
        "learned": f"{len(learned)} {kind}, {count:,} numbers{share}",
        "labels": record.get("labels") or None,
        "merged weights": about.merged and f"{about.merged.architecture}, {about.merged.dtype}",
    }
    if head:
        numbers = sum(math.prod(shape) for name, shape in about.shapes.items() if name.startswith(HEAD))
        rows["head"] = f"{numbers:,} numbers besides ({listed(head)})"
    return rows


def _data(data: Mapping[str, Any], held_out_by: Mapping[str, Any]) -> dict[str, Any]:
    rows, path = data.get("rows") or {}, str(data.get("path") or "")
    where = link(path, "datasets/") if "/" in path else path and f"`{path}`"
    known = ("class", "path", "commit", "revision", "rows", "files", "held_out_by", "left_out", "cut")
    files = {split: file for split, file in (data.get("files") or {}).items() if file}
    return {
        "data": where or data.get("class"),
        "commit of the data": data.get("commit"),
        "revision": data.get("revision"),
        "files": listed(files),
        **{name: value for name, value in data.items() if name not in known},
        "rows": ", ".join(f"{split} {count:,}" for split, count in rows.items() if is_number(count)),
        "held out by": listed(held_out_by),
    }


def _training(about: About) -> dict[str, Any]:
    train = about.results.get("train") or {}
    seconds = train.get("seconds")
    return {
        **about.settings,
        "number format of the backbone": about.record.get("dtype"),
        "steps": train.get("steps"),
        "epochs": train.get("epochs"),
        "processes": train.get("processes"),
        "training time": f"{seconds:,.0f} s" if is_number(seconds) else None,
        "seed": about.record.get("seed"),
        "decoding": listed(about.record.get("decoding") or {}),
    }


def _results(about: About) -> str:
    scores = {name: value for name, value in (about.record.get("scores") or {}).items() if is_number(value)}
    if not scores:
        return ""
    before = about.results.get("baseline_scores") or {}
    title = str(about.results.get("baseline") or "unedited")
    lines = ["| metric | test |", "|---|---:|"]
    if before:
        lines = [f"| metric | {cell(title)} | edited |", "|---|---:|---:|"]
    for name, value in scores.items():
        middle = f" {number(before.get(name))} |" if before else ""
        lines.append(f"| {cell(name)} |{middle} {number(value)} |")
    note = f"Measured on {tested_on(about.record)}."
    if unreadable := about.record.get("unreadable"):
        note += f" {unreadable} of the outputs were no label, which counts as wrong."
    return "\n".join(lines) + f"\n\n{note}"


def _origin(record: Mapping[str, Any]) -> str:
    if imported := record.get("imported"):
        files = [imported, *([imported["classifier"]] if isinstance(imported.get("classifier"), dict) else [])]
        told = " and ".join(f"`{cell(file.get('file'))}` (SHA-256 `{cell(file.get('sha256'))}`)" for file in files)
        return f"Imported from {told}, as the code of RED's authors writes them. No scores were measured here."
    if not (combined := record.get("combined")):
        return ""
    rows = ["| edits | weight | scores of their own |", "|---|---:|---|"]
    for source in combined.get("sources", []):
        scores = (source.get("record") or {}).get("scores") or {}
        told = ", ".join(f"{cell(name)} {number(value)}" for name, value in scores.items() if is_number(value))
        weight = source.get("weight")
        rows.append(f"| {cell(source.get('edits'))} | {number(weight)} | {told} |")
    how = "put one after the other" if combined.get("how") == "stack" else "added up with these weights"
    return f"Other edits of the same backbone, {how}. No scores were measured of the result.\n\n" + "\n".join(rows)


def _licence(about: About) -> str:
    known = about.licence.get("license_name") or about.licence.get("license")
    if about.record["backbone"] in hub.SHIPPED:
        return f"Licence: {known}." if known else "The backbone comes with red_lightning, under its licence."
    what = "These weights were made from those of" if about.merged else "The edits are of use only with"
    if not known:
        return f"{what} {about.backbone}. Its licence is not known here: see there."
    where = about.licence.get("license_link")
    return f"{what} {about.backbone}. Licence: {f'[{cell(known)}]({where})' if where else cell(known)}."
