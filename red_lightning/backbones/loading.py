"""Load a pretrained backbone from the hub or a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from red_lightning import hub
from red_lightning.backbones.quantization import Dtype, Quantization, check_format, quantization_config
from red_lightning.errors import UsageError, first_line
from red_lightning.families import record_of

Kernels = Literal["liger"]
"""The libraries of fused kernels."""


@dataclass
class BackboneOptions:
    """How a backbone is loaded.

    Attributes:
        revision: Branch, tag or commit on the hub. null is the main branch.
        dtype: dtype of the frozen weights. Trainable parameters are always float32. null is float32 for training, the
            dtype of the training for an adapter, and the dtype of the files for a model without an adapter.
        quantization: Quantization of the linears: ``nf4`` (4 bits, as in the QLoRA paper), ``fp4`` and ``int8`` through
            bitsandbytes; ``int8_weight_only`` and ``float8_weight_only`` through torchao. null does not quantize.
            Computation is in ``dtype``.
        attention: Attention implementation: ``sdpa``, ``eager`` or ``flash_attention_2``. null is transformers'
            default.
        gradient_checkpointing: Recompute each block in the backward pass. Saves memory and costs a second forward pass.
        selective_recomputation: Recompute cheap elementwise operations in the backward pass instead of storing their
            outputs. The loss is the same and gradients are equal up to rounding. null enables it where it costs no
            time: not for small batches, not on a CPU in 16 bits, and not with ``compile`` or ``kernels``.
        compile: Compile the blocks with torch.compile, for training and losses but not for decoding. The first steps
            can take minutes. Equal up to rounding, except that dropout draws other random numbers.
        kernels: ``liger`` uses the fused norms and gated FFNs of Liger Kernel on CUDA, for Llama, Mistral, Qwen 2 and
            3, Gemma 1 to 3 and Phi-3. Equal up to rounding. It stores more activations than ``selective_recomputation``
            and cannot be combined with ``compile``. null uses the model's own code.
        strict: Raise an error instead of a warning if a fast path differs from its plain equivalent.
        trust_remote_code: Run the Python code of the backbone's repository on this machine.
    """

    revision: str | None = None
    dtype: Dtype | None = None
    quantization: Quantization | None = None
    attention: str | None = None
    gradient_checkpointing: bool = False
    selective_recomputation: bool | None = None
    compile: bool = False
    kernels: Kernels | None = None
    strict: bool = False
    trust_remote_code: bool = False

    @property
    def number_format(self) -> Dtype:
        """``dtype``, or float32 for null."""
        return self.dtype or "float32"

    @property
    def format(self) -> dict[str, str | None]:
        """How the weights are stored, as a record says it."""
        return {"dtype": self.number_format, "quantization": self.quantization}


@dataclass
class Source:
    """Where a backbone is: found out once, before anything large is read.

    Attributes:
        name: Hub id or folder, as given.
        config: Its Hugging Face configuration.
        commit: The resolved commit on the hub; None for a folder.
        local_only: Read only what is on this machine already.
    """

    name: str
    config: Any
    commit: str | None
    local_only: bool

    @property
    def place(self) -> str:
        """What transformers reads it from."""
        return str(hub.local_folder(self.name) or self.name)

    @property
    def dtype(self) -> Dtype:
        """The number format of its files; float32 for any that we do not compute in."""
        name = str(getattr(self.config, "dtype", None)).removeprefix("torch.")
        return name if name in ("bfloat16", "float16") else "float32"  # type: ignore[return-value]

    def arguments(self, options: BackboneOptions) -> dict[str, Any]:
        """How transformers reads it."""
        return {
            "revision": self.commit,
            "trust_remote_code": options.trust_remote_code,
            "local_files_only": self.local_only,
        }


def find(name: str, options: BackboneOptions) -> Source:
    """Find a backbone and read its configuration.

    Raises:
        UsageError: The backbone does not exist, is gated, cannot be reached, or the folder holds no model.
    """
    folder = hub.local_folder(name)
    commit, local_only = None, False
    if folder is None:
        local_only = hub.offline()
        with hub.explained("backbone", name, options.revision):
            path = hf_hub_download(name, "config.json", revision=options.revision, local_files_only=local_only)
        commit = Path(path).parent.name
    elif not (folder / "config.json").is_file():
        raise UsageError(f"the folder '{name}' holds no model: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(
            str(folder or name),
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            local_files_only=local_only,
        )
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UsageError(f"the configuration of the backbone '{name}' cannot be read: {first_line(error)}") from error
    config.pad_token_id = getattr(config, "pad_token_id", None)  # transformers 5.0 may leave it out; Phi reads it
    return Source(name, config, commit, local_only)


def load_generator(source: Source, options: BackboneOptions, meta: bool = False) -> nn.Module:
    """Load a backbone that generates text: a decoder or an encoder-decoder.

    Args:
        source: The result of :func:`find`.
        options: How to load it.
        meta: Build it without weights, on the meta device (to count parameters).

    Returns:
        The model, in training mode: ``from_pretrained`` leaves it in evaluation mode and Lightning would keep that.

    Raises:
        UsageError: The folder holds no weights, or not all of them, or the model cannot generate.
    """
    if source.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not source.config.is_encoder_decoder:
        raise UsageError(
            f"the backbone '{source.name}' is an encoder ({source.config.model_type}) and cannot write text; "
            "choose a decoder such as GPT-2 or an encoder-decoder such as T5"
        )
    auto = AutoModelForSeq2SeqLM if source.config.is_encoder_decoder else AutoModelForCausalLM
    return _load(auto, source, options, meta).train()


def load_encoder(source: Source, options: BackboneOptions, keep_pooler: bool, meta: bool = False) -> nn.Module:
    """Load a backbone that gives hidden states: an encoder or a decoder, without a language-model head.

    Args:
        source: The result of :func:`find`.
        options: How to load it.
        keep_pooler: Keep the pretrained pooler, whose weights must then be there. Otherwise the model's ``pooler``, if
            it has one, becomes None, and it does not matter whether there are weights for it (RoBERTa has none).
        meta: Build it without weights, on the meta device (to count parameters).

    Returns:
        The model, in training mode.

    Raises:
        UsageError: The folder holds no weights, or not all of them, or the model is an encoder-decoder.
    """
    if source.config.is_encoder_decoder:
        raise UsageError(
            f"the backbone '{source.name}' is an encoder-decoder ({source.config.model_type}), which has no single "
            "representation of a text; use TextToTextClassification"
        )
    model = _load(AutoModel, source, options, meta, "" if keep_pooler else "pooler.")
    if not keep_pooler and isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    if (record := record_of(source.config)) and record.after_loading:
        record.after_loading(model)
    if hasattr(model.config, "reference_compile"):
        model.config.reference_compile = False  # torch.compile would not notice that a hook comes or goes
    return model.train()


def _load(auto: Any, source: Source, options: BackboneOptions, meta: bool, may_lack: str = "") -> Any:
    """The model of an auto class; parameters whose names begin with ``may_lack`` (if any) need no weights."""
    try:
        if meta:
            with torch.device("meta"):
                model = auto.from_config(
                    source.config,
                    dtype=getattr(torch, options.number_format),
                    attn_implementation=options.attention,
                    trust_remote_code=options.trust_remote_code,
                )
            model.tie_weights()  # transformers 5.0 leaves that out on the meta device
            return model
        with silence():  # what is missing is refused below
            model, report = auto.from_pretrained(
                source.place,
                config=source.config,  # with what find() added to it
                dtype=getattr(torch, options.number_format),
                attn_implementation=options.attention,
                quantization_config=quantization_config(options.quantization, options.number_format),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **source.arguments(options),
            )
        check_format(model, options.quantization)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"the backbone '{source.name}' cannot be loaded: {first_line(error)}") from error
    lacking = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    unfit = sorted(key for key in lacking if not (may_lack and key.startswith(may_lack)))
    if unfit and unfit[0].startswith("pooler."):
        raise UsageError(
            f"the backbone '{source.name}' has no pretrained pooler; choose model.head.pooling first, mean or last"
        )
    if unfit:  # transformers would go on with random numbers
        raise UsageError(
            f"the weights of the backbone '{source.name}' do not fit its architecture {type(model).__name__}: "
            f"'{unfit[0]}' is missing or of another shape"
        )
    return model


@contextmanager
def silence() -> Iterator[None]:
    """Keep transformers from printing a progress bar and a report of the weights that it did not need."""
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
