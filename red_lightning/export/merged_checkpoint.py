"""Merge an adapter into a standard checkpoint, written tensor by tensor."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from red_lightning import hub
from red_lightning.adapters.edited import find_backbone, find_edits, require_head_width
from red_lightning.adapters.file_format import head_of, read_edits
from red_lightning.atomic_files import new_folder, require_new
from red_lightning.backbones.quantization import Dtype
from red_lightning.backbones.weight_files import TOKENIZER_FILES, file_of
from red_lightning.data.prompt_templates import trained_stop_ids
from red_lightning.errors import UsageError
from red_lightning.export.chat_template import write_template
from red_lightning.export.equivalents import Form, forms, older_names
from red_lightning.export.folding import INSTEAD, Folding, open_folding
from red_lightning.export.sequence_classifiers import sequence_classifier
from red_lightning.export.weight_shards import write_shards
from red_lightning.families import ARCHITECTURES

DECODING = ("num_beams", "length_penalty", "no_repeat_ngram_size", "repetition_penalty", "max_new_tokens")
"""What of a run's decoding the generation config of transformers has a place for, besides sampling."""


class Merged(NamedTuple):
    """What was written.

    Attributes:
        folder: Where it is.
        auto: Name of the transformers class that loads it, such as ``AutoModelForCausalLM``.
        architecture: Name of the model class, such as ``LlamaForCausalLM``.
        dtype: Number format of the weights.
        size: Bytes of the weights.
        notes: What to know of it, one sentence each.
    """

    folder: Path
    auto: str
    architecture: str
    dtype: Dtype
    size: int
    notes: list[str]


@dataclass(frozen=True)
class _Target:
    """The plain architecture that holds the folded backbone.

    Attributes:
        form: The architecture.
        model: A model of it, on the meta device.
        zeros: Its biases that nothing was folded into; only the shapes count.
        head: What a classifier's head puts into it, by name.
        apart: A head that it cannot hold.
        notes: What to know of it, one sentence each.
    """

    form: Form
    model: nn.Module
    zeros: dict[str, Tensor]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    apart: Mapping[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return type(self.model).__name__


def export_merged(
    edits: str | Path,
    output: str | Path,
    backbone: str | None = None,
    revision: str | None = None,
    dtype: Dtype | None = None,
    max_shard_bytes: int = 2 * 10**9,
    for_llama_cpp: bool = False,
    weights: bool = True,
    trust: Sequence[str] = (),
    check: Callable[[Merged], None] | None = None,
) -> Merged:
    """Write a checkpoint that plain transformers loads, with the outputs of the edited model.

    The weights are read one at a time, folded in float32, and rounded once to ``dtype``; in memory are at most those
    of one file that is written (see :func:`~red_lightning.backbones.weight_streaming.open_weights` for backbones of
    other files than safetensors, and quantized ones, whose weights become 16-bit). Where the architecture has no bias
    for what an edit adds, its configuration switches biases on, or the equivalent in the family's record takes its
    place (for a Mistral, a Llama with ``mlp_bias`` or ``attention_bias``). The biases that no edit needs are zero.

    A classifier becomes the family's own ``...ForSequenceClassification`` where that computes the same, else its
    backbone alone, with the head beside it in ``head.safetensors``. A model tuned on the paper's prompts gets them as
    its chat template, and one that writes its run's decoding as its generation config.

    Args:
        edits: A run's folder, its ``edits`` folder, or a hub repository of edits.
        output: The folder to write, which must not exist or be empty. It appears when it is complete.
        backbone: Where the backbone is now, as a folder or hub id; None for where ``edits.json`` says.
        revision: Branch, tag or commit of the edits' hub repository.
        dtype: Number format of the weights; None for that of the training, and bfloat16 for a quantized backbone.
        max_shard_bytes: Bytes of weights in one file.
        for_llama_cpp: Refuse what llama.cpp's ``convert_hf_to_gguf.py`` or its graphs do not take.
        weights: False writes all but the weights, to see what would be written; their size is then an estimate.
        trust: Packages whose own methods may be imported: their code runs.
        check: Is called with what was written before it gets its place; what it raises leaves nothing behind.

    Returns:
        What was written.

    Raises:
        UsageError: The edits cannot be folded exactly, do not belong to the backbone, or cannot be read; or the output
            holds something, or cannot be written. Nothing was written then.
    """
    require_new(Path(output), "the merged model")
    folder = find_edits(edits, revision)
    tensors, record = read_edits(folder)
    source, options = find_backbone(record, backbone)
    require_head_width(tensors, source, folder)
    dtype = dtype or ("bfloat16" if options.quantization else options.dtype) or source.dtype
    folding = open_folding(folder, tensors, record, source, options, trust)
    target = _target(folding, source.config, record, head_of(tensors))
    if for_llama_cpp:
        _require_llama_cpp(target)
    with hub.explained("backbone", source.name, source.commit):
        beside = [path for name in (*TOKENIZER_FILES, "generation_config.json") if (path := file_of(source, name))]
    with new_folder(Path(output), "the merged model") as part:
        try:
            files = write_shards(part, _rounded(folding, target, dtype), max_shard_bytes) if weights else []
            if target.apart:
                save_file(dict(target.apart), part / "head.safetensors", {"head": json.dumps(record["head"])})
        except SafetensorError as error:  # a full disk
            raise OSError(str(error)) from error
        _write_config(part, target, dtype)
        for path in beside:  # the tokenizer's files as they are, and how the model is best decoded
            shutil.copyfile(path, part / path.name)
        if record.get("decoding"):
            stop_ids = trained_stop_ids(record, AutoTokenizer.from_pretrained(part))
            _write_decoding(part, target.model.config, record["decoding"], stop_ids)
            if record["decoding"].get("stop"):
                target.notes.append("generate needs the stop texts of the training: pass stop_strings and tokenizer")
        target.notes.extend(write_template(part, record.get("data") or {}))
        numbers = sum(parameter.numel() for parameter in target.model.parameters())
        size = sum(file.stat().st_size for file in files) or numbers * getattr(torch, dtype).itemsize
        merged = Merged(part, target.form.auto.__name__, target.name, dtype, size, target.notes)
        if check is not None:
            check(merged)
    return merged._replace(folder=Path(output))


def _target(folding: Folding, config: Any, record: Mapping[str, Any], head: Mapping[str, Tensor]) -> _Target:
    """The nearest architecture that has a place for each tensor of the folded backbone."""
    added = folding.added()
    made = {n: torch.empty(t.shape, device="meta") for n, t in {**folding.stored, **added}.items()}
    if head and (found := sequence_classifier(config, record["head"]["pooling"], head, record.get("labels"))):
        form, placed = found
        model = form.build()
        zeros = form.added_biases(model, {**_renamed(form, made), **placed})
        if zeros is not None:
            return _Target(form, model, zeros, placed)
    is_classifier = record.get("head") or record.get("task") == "Classification"
    language_model = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    for form in forms(AutoModel if is_classifier else language_model, config):
        model = form.build()
        if (zeros := form.added_biases(model, _renamed(form, made))) is not None:
            notes = [f"{form.note} computes the same and holds the edits' biases"] if form.note else []
            if head:
                notes.append(
                    f"transformers has no classifier of {config.model_type} that computes what this head does, so the "
                    "backbone is written without one (AutoModel), and the head beside it in head.safetensors"
                )
            return _Target(form, model, zeros, apart=head, notes=notes)
    where = f"a bias in '{next(iter(added)).removesuffix('.bias')}'" if added else "weights of this shape"
    raise UsageError(
        f"no plain architecture computes the same: {config.model_type} has no place for {where}{INSTEAD}, or train "
        "with model.method.vectors scaling, which merges"
    )


def _renamed(form: Form, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(part for name, tensor in tensors.items() for part in form.renamed(name, tensor))


def _rounded(folding: Folding, target: _Target, dtype: Dtype) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the checkpoint."""

    def every() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in folding.tensors():
            yield from target.form.renamed(name, tensor)
        yield from target.head.items()
        yield from ((name, torch.zeros(tensor.shape)) for name, tensor in target.zeros.items())

    for name, tensor in every():
        rounded = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        if not _is_finite(rounded):
            if _is_finite(tensor):
                larger = "bfloat16 or float32" if dtype == "float16" else "float32"
                raise UsageError(f"'{name}' is too large for {dtype}; give --dtype {larger}")
            raise UsageError(f"'{name}' would hold NaN or infinite numbers: the edits, or the backbone, are too large")
        yield name, rounded.contiguous()


def _is_finite(tensor: Tensor) -> bool:
    """Whether there is no NaN and nothing infinite in it; without a second tensor of its size."""
    return tensor.numel() == 0 or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def _require_llama_cpp(target: _Target) -> None:
    way = "; export the merged model for another server (--format merged)"
    reads = {kind: biases for record in ARCHITECTURES for kind, biases in record.llama_cpp.items()}
    model_type: str = target.form.config.model_type
    if target.form.auto is not AutoModelForCausalLM or model_type not in reads:
        known = ", ".join(sorted(reads))
        raise UsageError(f"llama.cpp does not run a {target.name}, but decoders of the model types {known}{way}")
    if target.form.note and not reads[model_type]:
        raise UsageError(f"llama.cpp does not read the biases of {target.form.note}{way}")


def _write_config(folder: Path, target: _Target, dtype: Dtype) -> None:
    config: Any = target.model.config
    config.architectures, config.dtype = [target.name], dtype
    content = {**older_names(config), **json.loads(config.to_json_string())}
    (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_decoding(folder: Path, config: Any, decoding: Mapping[str, Any], stop_ids: list[int]) -> None:
    """Let ``generate`` decode and stop as the run did; the backbone's own generation config keeps the tokens' ids."""
    path = folder / "generation_config.json"
    own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    every = {**GenerationConfig.from_model_config(config).to_dict(), **own}
    ids = {name: value for name, value in every.items() if "_token_id" in name and value is not None}
    own_ends = ids.get("eos_token_id", [])
    ends = [*dict.fromkeys([*stop_ids, *(own_ends if isinstance(own_ends, list) else [own_ends])])]
    ids["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    drawn = bool(decoding.get("temperature"))
    names = [name for name in DECODING if name != "length_penalty" or decoding.get("num_beams", 1) != 1]
    names += ["temperature", "top_p", "top_k", "min_p"] if drawn else []
    said = {name: decoding[name] for name in names if isinstance(decoding.get(name), int | float)}
    path.write_text(json.dumps({**ids, "do_sample": drawn, **said}, indent=2) + "\n", encoding="utf-8")
