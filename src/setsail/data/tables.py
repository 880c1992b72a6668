"""CSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setsail.core import DataError
from setsail.data.jsonfiles import text_lines


def read_csv_rows(path: Path, title: str) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file with a header. Every value is a string: nothing is guessed from its look.

    Raises:
        DataError: bytes that are not UTF-8, a row with more or fewer fields than the header.
    """
    reader = csv.reader((line for _, line in text_lines(path, title)), strict=True)
    row = 0
    try:
        header = next(reader, None)
        if header is None:
            return
        for row, fields in enumerate((fields for fields in reader if fields), start=1):
            if len(fields) != len(header):
                raise DataError(
                    f"{title}: row {row} has {len(fields)} fields, the header has {len(header)} "
                    f"({', '.join(header)}). A field that holds a comma, a quote or a line end must be quoted."
                )
            yield dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{title}: row {row + 1} cannot be read as CSV ({error}). JSON lines are safer.") from None


def read_parquet_rows(path: Path, title: str) -> list[dict[str, Any]]:
    """The rows of a Parquet file.

    Raises:
        DataError: the file is damaged or is not Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{title}: cannot be read as Parquet ({reason}). Fetch or write the file again.") from None
    return rows
