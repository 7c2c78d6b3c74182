"""Records survive whatever ends the process that writes them."""

from pathlib import Path

import pytest

from red_lightning.errors import UsageError
from red_lightning.jsonl import Records

ROWS = [{"text": "a\u2028b \ud83d \n"}, {"text": "ü"}]


def test_records_are_kept_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    with Records(path, {}) as records:
        for row in ROWS:
            records.append(row)
        assert records.rows == ROWS
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        with Records(path, {}) as records:
            assert records.rows == ROWS[:1]
            records.append(ROWS[1])
        assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for damage in (b'{"a": \n', b"7\n", b"\x00\x00\n", b"{}\n", b'{"a": "1"}\n'):
        path.write_bytes(b'{"a": 1}\n' + damage + b'{"a": 2}\n')
        with pytest.raises(UsageError, match=r"line 2 of .* is damaged; remove that line"):
            Records(path, {"a": int})


def test_one_process_at_a_time_and_a_place_that_can_be_written(tmp_path: Path) -> None:
    with Records(tmp_path / "a.jsonl", {}), pytest.raises(UsageError, match="another process adds to"):
        Records(tmp_path / "a.jsonl", {})
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        Records(tmp_path / "file" / "a.jsonl", {})
