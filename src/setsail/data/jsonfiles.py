"""JSON and JSON lines, plain or gzipped, read so that an error can name the row."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from setsail.core import DataError

_BYTE_ORDER_MARK = "\ufeff"


def read_json_rows(path: Path, title: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSON list or of a JSON-lines file; which of the two it is shows in its first character.

    Raises:
        DataError: bytes that are not UTF-8, a gzip file cut short, a row that is not a JSON object.
    """
    lines = text_lines(path, title)
    for number, line in lines:
        if not line.strip():
            continue
        if line.lstrip().startswith("["):
            return _list_rows(line + "".join(rest for _, rest in lines), title)
        return _line_rows((number, line), lines, title)
    return iter(())


def text_lines(path: Path, title: str) -> Iterator[tuple[int, str]]:
    """``(line number from 1, line with its line end)`` of a UTF-8 file, unzipped where the name ends in .gz."""
    for number, line in _byte_lines(path, title):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{title}: line {number} is not UTF-8 (byte {line[error.start]:#04x} at position {error.start + 1} "
                f"of the line). Convert the file, for example with: iconv -f latin1 -t utf-8 {path.name}"
            ) from None
        yield number, text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text


def _byte_lines(path: Path, title: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line
    except EOFError:
        raise DataError(
            f"{title}: the gzip file is cut short after line {number}; it was not copied or downloaded to its end. "
            "Fetch it again."
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{title}: cannot be unzipped ({error}). The name ends in .gz, but the file is not gzip or is damaged."
        ) from None
    except OSError as error:
        raise DataError(f"{title}: cannot be read ({error.strerror or error}).") from None


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _line_rows(first: tuple[int, str], rest: Iterator[tuple[int, str]], title: str) -> Iterator[dict[str, Any]]:
    row = 0
    for number, line in _chain(first, rest):
        if not line.strip():
            continue
        row += 1
        place = f"row {row}" if row == number else f"row {row} (line {number})"
        try:
            value = json.loads(line.rstrip("\r\n"))  # so that the column of an error lies on this line
        except json.JSONDecodeError as error:
            raise DataError(
                f"{title}: {place} is not readable JSON: {error.msg} at column {error.colno}. Each line must hold "
                'one JSON object, such as {"prompt": "...", "chosen": "...", "rejected": "..."}, '
                "or the whole file one list of them."
            ) from None
        yield _object(value, place, title)


def _chain(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _list_rows(text: str, title: str) -> Iterator[dict[str, Any]]:
    # Element by element rather than json.loads of the whole, so that an error can name the row.
    decoder = json.JSONDecoder()
    position, row = _skip_space(text, text.index("[") + 1), 0
    more = text[position : position + 1] != "]"
    while more:
        row += 1
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{title}: row {row} is not readable JSON: {error.msg} at line {error.lineno}, column {error.colno}."
            ) from None
        yield _object(value, f"row {row}", title)
        position = _skip_space(text, position)
        more = text[position : position + 1] == ","
        if more:
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise DataError(f"{title}: the JSON list stops after row {row} without its closing bracket.")
    if text[position + 1 :].strip():
        raise DataError(f"{title}: there is text after the end of the JSON list of {row} rows.")


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _object(value: Any, place: str, title: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise DataError(
        f"{title}: {place} is a JSON {_json_kind(value)}, not an object. "
        'Each row must be an object, such as {"prompt": "...", "chosen": "...", "rejected": "..."}.'
    )


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    if isinstance(value, str):
        return "string"
    return "null" if value is None else "boolean" if isinstance(value, bool) else "number"
