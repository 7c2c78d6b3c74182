"""Write safetensors files of limited size while the weights are computed."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], most: int) -> list[Path]:
    """Write tensors under the names that ``from_pretrained`` looks for, holding those of one file at a time.

    Args:
        folder: An existing folder.
        tensors: Names and contiguous tensors, each made when it is asked for.
        most: Bytes of tensors in a file; a larger tensor has a file of its own.

    Returns:
        The files: ``model.safetensors``, or several and their index ``model.safetensors.index.json``.

    Raises:
        OSError: They cannot be written.
        SafetensorError: As well.
    """
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > most:
            shards.append(_write(folder, len(shards), held))
            size = 0
        held[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    shards.append(_write(folder, len(shards), held))
    if len(shards) == 1:
        return [_part(folder, 0).rename(folder / "model.safetensors")]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    files = [_part(folder, number).rename(folder / name) for number, name in enumerate(names)]
    index = {name: file for file, held_names in zip(names, shards, strict=True) for name in held_names}
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return files


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}.safetensors"


def _write(folder: Path, number: int, held: dict[str, Tensor]) -> list[str]:
    """Write what is held, and let it go."""
    save_file(held, _part(folder, number), metadata={"format": "pt"})
    names = list(held)
    held.clear()
    return names
