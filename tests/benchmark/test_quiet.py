"""Warnings are left out; errors are not."""

import logging
import os
import warnings

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from red_lightning.benchmark.quiet import quiet, without_lines


def test_no_warnings_but_errors(caplog: pytest.LogCaptureFixture) -> None:
    late = logging.getLogger("late")
    with warnings.catch_warnings(record=True) as caught, quiet():
        late.setLevel(logging.DEBUG)  # as libraries do when they are imported
        late.warning("a warning")
        rank_zero_info("an information")
        late.error("an error")
        warnings.warn("a warning", stacklevel=1)
    late.warning("later")
    assert [record.getMessage() for record in caplog.records] == ["an error", "later"]
    assert not caught


def test_an_exception_ends_the_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet(), without_lines("USDT:"):
        os.write(2, b"USDT: started\nan error\n USDT: is in the middle\n")
        raise KeyError
    assert logging.getLogger("late").isEnabledFor(logging.WARNING)
    assert capfd.readouterr().err == "an error\n USDT: is in the middle\n"
