"""What a training step frees is there for the next."""

import platform
import subprocess
import sys

import pytest

from red_lightning.strategies import allocation

PROGRAM = """
import resource, runpy, sys
keep = runpy.run_path(sys.argv[1])["keep_freed_memory"]
if sys.argv[2] == "kept":
    keep()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [bytearray(b"1") * 12_000_000 for _ in range(10)]
    del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(min(faults() for _ in range(3)))
"""
"""Writes to 120 MB several times, which are freed in between; prints how many pages are new at one of them."""


def faults(way: str) -> int:
    command = [sys.executable, "-S", "-c", PROGRAM, allocation.__file__, way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways")
def test_freed_memory_is_used_again() -> None:
    pages = 120_000_000 // 4096
    assert faults("as it is") > pages / 2
    assert faults("kept") < pages / 20
