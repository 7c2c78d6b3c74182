"""How the C library keeps memory, for threads of which one runs at a time."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's ``mallopt`` (``malloc.h``)."""


def share_freed_memory() -> None:
    """Let what one thread frees be there for the next, in place of the system.

    glibc returns a large block when it is freed, and the kernel then fills each page with zeros again before it can be
    used: on a CPU, for the activations of every pass. It also keeps apart what each thread has freed, which
    several threads may need at once, but not those that take turns. Call this before they start. Up to 2 GiB at the
    end of what is allocated stay with the process from then on, and freed blocks of more than 1 GiB (32 MiB in an old
    glibc) do not. Nothing changes where there is another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    mallopt(ARENA_MAX, 1)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    mallopt(MMAP_THRESHOLD, 2**30) or mallopt(MMAP_THRESHOLD, 2**25)
