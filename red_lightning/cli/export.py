"""``export``: a run's edits as files for elsewhere, folded into the backbone or as they are."""

import math
import shutil
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
    """Write edits for use elsewhere: a checkpoint that plain transformers loads, or a copy of the edits.

    Args:
        edits: A run's folder, its edits/ folder, or a hub repository of edits.
        output: The folder to write, which must not exist or be empty.
        format: "merged" folds the edits into the backbone's weights; "gguf-ready" does so and refuses what llama.cpp's
            convert_hf_to_gguf.py does not take; "edits" copies the edits.
        backbone: Where the backbone is now, as a folder or hub id; null for where edits.json says.
        revision: Branch, tag or commit of the edits' hub repository.
        dtype: Number format of the merged weights; null for that of the backbone's files, and bfloat16 if it was
            quantised.
        max_shard_gb: Size of the largest file of merged weights, in GB; to write them takes about as much memory.
        check: Load both models, one after the other and each of them whole, and say how far the merged outputs are
            from the edited model's; false needs no more memory than the writing.
        trust: Packages whose own methods may be imported, such as my_package: their code runs. Only edits of a method
            that is not part of red_lightning need it.

    Raises:
        UsageError: The edits cannot be read or folded exactly, or the output holds something or cannot be written.
    """
    from red_lightning.adapters import copy_edits
    from red_lightning.errors import UsageError, require_range
    from red_lightning.export import export_merged, largest_difference

    if format == "edits":
        given = {"backbone": backbone, "dtype": dtype, "max_shard_gb": max_shard_gb if max_shard_gb != 2.0 else None}
        if unused := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"--{unused[0]} is for merged weights, but --format edits copies the edits; leave it out")
        copy_edits(edits, output, revision)
        print(f"wrote {output}")
        return
    require_range("max_shard_gb", max_shard_gb, 0.001)
    merged = export_merged(
        edits,
        output,
        backbone,
        revision,
        dtype,
        int(max_shard_gb * 1e9),
        for_llama_cpp=format == "gguf-ready",
        trust=trust,
    )
    apart = largest_difference(merged, edits, backbone, revision, trust) if check else None
    if apart and not math.isfinite(apart.largest):
        shutil.rmtree(output)
        raise UsageError(
            "nothing was written: the outputs of the merged or of the edited model are NaN or infinite; give another "
            f"--dtype than {merged.dtype}, or train with a smaller learning rate"
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
