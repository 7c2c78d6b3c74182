"""How a global batch is divided."""

import pytest

from red_lightning.data.batch_sizes import accumulation
from red_lightning.errors import UsageError


@pytest.mark.parametrize(
    ("rows", "micro", "processes", "expected"),
    [(128, 2, 1, 64), (128, 2, 8, 8), (128, 2, 64, 1), (128, None, 1, 1), (128, None, 8, 1), (6, 3, 2, 1)],
)
def test_the_papers_global_batch_holds_on_any_number_of_processes(
    rows: int, micro: int | None, processes: int, expected: int
) -> None:
    assert accumulation(rows, micro, processes) == expected


@pytest.mark.parametrize(
    ("rows", "micro", "processes", "sentence"),
    [
        (128, None, 3, "global_batch_size is 128, which 3 processes cannot share equally; make it a multiple of 3"),
        (128, 3, 1, "128 on 1 process is 128 rows each, which data.micro_batch_size 3 does not divide"),
        (128, 6, 2, "128 on 2 processes is 64 rows each, which data.micro_batch_size 6 does not divide"),
        (128, 256, 1, "does not divide; make it a divisor of 128"),
    ],
)
def test_what_does_not_divide_is_refused(rows: int, micro: int | None, processes: int, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        accumulation(rows, micro, processes)
    assert sentence in str(error.value)
