"""``export``: a standard checkpoint with the adapter merged into it, or a copy of the adapter."""

import math
from pathlib import Path
from typing import Literal


def export(
    edits: str,
    output: Path,
    format: Literal["edits", "merged", "gguf-ready"] = "merged",
    backbone: str | None = None,
    revision: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    max_shard_gb: float = 2.0,
    check: bool = True,
    trust: list[str] = [],  # noqa: B006 - never changed
) -> None:
    """Merge an adapter into a checkpoint that transformers loads, or copy the adapter.

        export runs/mine --output merged
        export runs/mine --format gguf-ready --output for_llama_cpp

    Args:
        edits: A run's folder, its edits/ folder, or a hub repository with an adapter.
        output: Output folder, new or empty.
        format: "merged" merges the adapter into the backbone's weights. "gguf-ready" does the same and refuses models
            that llama.cpp's convert_hf_to_gguf.py does not accept. "edits" copies the adapter.
        backbone: Folder or hub id of the backbone. Default: the one that edits.json names.
        revision: Branch, tag or commit of the adapter's hub repository.
        dtype: dtype of the merged weights. Default: that of the training, and bfloat16 for a quantized backbone.
        max_shard_gb: Largest size of a weight file, in GB. Writing needs about as much memory.
        check: Compare the outputs of the merged and the edited model. Loads both models, one after the other. false
            needs only the memory for writing.
        trust: Packages to import custom methods from, such as my_package. Their code runs on this machine. Needed only
            for adapters of methods outside red_lightning.

    Raises:
        UsageError: The adapter cannot be read or merged exactly, or the output folder is not empty or not writable.
    """
    from red_lightning.adapters import copy_edits
    from red_lightning.errors import UsageError, require_range
    from red_lightning.export import Difference, Merged, export_merged, largest_difference

    if format == "edits":
        given = {"backbone": backbone, "dtype": dtype, "max_shard_gb": max_shard_gb if max_shard_gb != 2.0 else None}
        if unused := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"--{unused[0]} is for merged weights, but --format edits copies the edits; leave it out")
        copy_edits(edits, output, revision)
        print(f"wrote {output}")
        return
    require_range("max_shard_gb", max_shard_gb, 0.001)
    apart: Difference | None = None

    def compare(written: Merged) -> None:
        nonlocal apart
        apart = largest_difference(written, edits, backbone, revision, trust)
        if not math.isfinite(apart.largest):
            raise UsageError(
                "nothing was written: the outputs of the merged or of the edited model are NaN or infinite; give "
                f"another --dtype than {written.dtype}, or train with a smaller learning rate"
            )

    merged = export_merged(
        edits,
        output,
        backbone,
        revision,
        dtype,
        int(max_shard_gb * 1e9),
        for_llama_cpp=format == "gguf-ready",
        trust=trust,
        check=compare if check else None,
    )
    size = f"{merged.size / 1e9:.2f} GB" if merged.size >= 1e8 else f"{merged.size / 1e6:.2f} MB"
    print(f"wrote {output}: {merged.architecture}, {merged.dtype}, {size}; load it with {merged.auto}")
    for note in merged.notes:
        print(f"note: {note}")
    if apart:
        print(
            f"largest {apart.of} difference from the edited model: {apart.largest:.1e} "
            f"(largest {apart.of}: {apart.scale:.3g})"
        )
