"""What a thread frees is there for the next."""

import platform
import subprocess
import sys

import pytest

from red_lightning.strategies import allocation

PROGRAM = """
import resource, runpy, sys, threading
share = runpy.run_path(sys.argv[1])["share_freed_memory"]
if sys.argv[2] == "shared":
    share()

def work():
    kept = [bytearray(b"1") * 12_000_000 for _ in range(10)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(min(faults() for _ in range(3)))
"""
"""Threads one after another write to 120 MB each; prints how many pages are new to one of them."""


def faults(way: str) -> int:
    command = [sys.executable, "-S", "-c", PROGRAM, allocation.__file__, way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways")
def test_freed_memory_is_used_again() -> None:
    pages = 120_000_000 // 4096
    assert faults("as it is") > pages / 2
    assert faults("shared") < pages / 20
