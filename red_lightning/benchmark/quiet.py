"""Keep other libraries' messages out of the tables; errors are shown."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, and what is logged that is no error: by Lightning, transformers, DeepSpeed and bitsandbytes."""
    before = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def without_lines(beginning: str) -> Iterator[None]:
    """Leave lines out of the standard error of the whole process, C++ included; the others come when it is over.

    Args:
        beginning: What the lines begin with.
    """
    sys.stderr.flush()
    with TemporaryFile() as written:
        shown = os.dup(2)
        try:
            os.dup2(written.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            written.seek(0)
            for line in written:
                if not line.startswith(beginning.encode()):
                    os.write(2, line)
