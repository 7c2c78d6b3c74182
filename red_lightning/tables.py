"""Read CSV and TSV text row by row, without merging lines in silence."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from red_lightning.errors import UsageError

Quoting = Literal["auto", "quoted", "none"]
"""How quotes at the beginning of a field are read: as ``auto``, fields may be quoted, but a row that reaches over lines
which are rows by themselves is refused; as ``quoted``, it is read; as ``none``, quotes are text (GLUE's own style)."""

WAY = "give --data.quoting none if quotes are part of the texts, or quoted if fields are quoted"


def table_rows(
    text: str, name: str, delimiter: str, quoting: Quoting = "auto"
) -> Iterator[tuple[int, list[str] | UsageError]]:
    """Yield the number of the line that each row begins in, and its fields, none for a blank line; or what is wrong.

    Args:
        text: The contents of the file.
        name: The file, for errors.
        delimiter: A comma or a tab.
        quoting: How quotes are read.

    Raises:
        UsageError: Quotes do not match, so that no row can be read behind them.
    """
    csv.field_size_limit(2**31 - 1)  # texts may be longer than the module's own limit of 131,072 characters
    lines = io.StringIO(text, newline="")
    if quoting == "none":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    plain = re.split("\r\n|\n|\r", text) if quoting == "auto" and '"' in text else []
    line, width = 1, 0
    try:
        for fields in reader:
            width = width or len(fields)
            spanned = range(line, reader.line_num + 1)
            if plain and len(spanned) > 1 and _are_rows(plain, spanned, delimiter, width):
                yield (
                    line,
                    UsageError(
                        f"line {line} of '{name}' begins a quoted field that ends in line {reader.line_num}, but these "
                        f"lines are rows by themselves; {WAY}"
                    ),
                )
            else:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"line {line} of '{name}' is not valid CSV: {error}; {WAY}") from error


def _are_rows(lines: Sequence[str], spanned: range, delimiter: str, width: int) -> bool:
    """Return whether each of some lines has as many fields as a row, if quotes are text."""
    return all(lines[number - 1].count(delimiter) + 1 == width for number in spanned)
