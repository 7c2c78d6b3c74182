"""torch.compile of a backbone, block by block. Blocks are alike, so the kernels of the first serve all."""

import os
import subprocess
import sysconfig
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from red_lightning.compat.compiler import allow_variants, guard_hooks
from red_lightning.compat.key_value_cache import cache_among
from red_lightning.errors import UsageError
from red_lightning.families import record_of

BACKEND = "inductor"
"""What torch.compile makes kernels with."""

MOST_VARIANTS = 64
"""Kernels of one block's code: for training and evaluation, with and without a mask, with other editors, and so on."""


def require_compiler(compiles: bool) -> None:
    """Refuse a machine on which no kernel could be made.

    Args:
        compiles: Whether some are to be made.

    Raises:
        UsageError: There is no C++ compiler that works, or Python's headers are missing, or PyTorch is too old.
    """
    if not compiles:
        return
    compiler = os.environ.get("CXX", "g++")
    if not _works(compiler):
        raise UsageError(
            "model.backbone_options.compile needs a C++ compiler and Python's headers (in Debian the packages g++ and "
            f"python3-dev), but '{compiler}' cannot build against them on this machine; install them, set CXX to a "
            "compiler that works, or leave compile out"
        )
    if not hasattr(torch.compiler, "set_stance"):
        raise UsageError(
            f"model.backbone_options.compile needs PyTorch 2.6 or newer, but this is {torch.__version__}; upgrade it, "
            "or leave compile out"
        )


@lru_cache
def _works(compiler: str) -> bool:
    """Whether a compiler makes a library, of one line that needs Python's headers."""
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "line.cpp"), Path(folder, "line.so")
        source.write_text("#include <Python.h>\n", encoding="utf-8")
        headers = f"-I{sysconfig.get_path('include')}"
        try:
            subprocess.run(
                [compiler, "-shared", "-fPIC", headers, str(source), "-o", str(library)],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        return library.is_file()


def compile_blocks(backbone: Any) -> None:
    """Let torch.compile make the kernels of each block, when it is first called; for any number of tokens.

    Making them can take minutes, in which the first steps wait.

    Losses and gradients are equal to rounding. Editors may come and go later: what a block's hooks do is compiled with
    it, and compiled anew where they have changed. Passes that read or fill a cache of keys and values, as decoding
    does, are left alone, and so are copies of the backbone. Dropout draws other numbers than without.

    Args:
        backbone: A Hugging Face model of a family with a record.

    Raises:
        UsageError: It is of another family.
    """
    record = record_of(backbone.config)
    if record is None:
        raise UsageError(
            f"model.backbone_options.compile: the model family '{backbone.config.model_type}' has no record of what "
            "its blocks are called; leave compile out"
        )
    guard_hooks()
    allow_variants(MOST_VARIANTS)
    pattern = record.block_pattern()
    for name, module in backbone.named_modules():
        if pattern.fullmatch(name):
            module.compile(dynamic=True, backend=BACKEND)
    backbone.register_forward_pre_hook(_begin, with_kwargs=True)
    backbone.blocks_are_compiled = True
    backbone.register_forward_hook(_end, always_call=True)


_left_alone: list[Any] = []
"""The forward pass that runs without the kernels."""


def _begin(backbone: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of a backbone: each layer's place in a cache would make it a variant of its own."""
    caches = kwargs.get("use_cache")
    caches = getattr(backbone.config, "use_cache", False) if caches is None else caches
    if caches or cache_among(kwargs) is not None:
        _left_alone.append(torch.compiler.set_stance("force_eager"))


def _end(backbone: nn.Module, args: Any, output: Any) -> None:
    """Forward hook of a backbone; runs after an exception, too."""
    if _left_alone:
        _left_alone.pop().__exit__(None, None, None)
