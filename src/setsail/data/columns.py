"""Which column of the data plays which part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from setsail.core import ConfigError, DataError, nearest

PARTS = (
    "prompt", "chosen", "rejected", "p", "completion", "label", "responses", "scores", "instruction", "input",
    "messages",
)  # fmt: skip
"""The parts that a mapping may name: the names that the forms look for."""


def check_mapping(columns: Mapping[str, str], title: str) -> None:
    """Refuse a mapping whose left-hand names are not parts of an example.

    Raises:
        ConfigError: naming the nearest part, or saying that the mapping is the wrong way round.
    """
    for part, column in columns.items():
        if part in PARTS:
            continue
        if column in PARTS:
            hint = f"the part comes first and your column second: columns={{{column!r}: {part!r}}}."
        else:
            hint = f"the parts are {', '.join(PARTS)}{nearest(part, PARTS) or '.'}"
        raise ConfigError(f"{title}: columns={dict(columns)!r} names a part {part!r} that does not exist; {hint}")


def check_mapped(columns: Mapping[str, str], found: Iterable[str], title: str) -> None:
    """Refuse a mapping to columns that the data do not have.

    Raises:
        DataError: naming the columns found and the nearest of them.
    """
    names = list(found)
    for part, column in columns.items():
        if column not in names:
            raise DataError(
                f"{title}: columns={dict(columns)!r} takes {part!r} from a column {column!r} that the data do not "
                f"have. Columns found: {', '.join(names)}{nearest(column, names) or '.'}"
            )


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with mapped columns under the names of their parts; a mapped column hides one of the part's name.

    >>> renamed({"question": "1+1?", "good": "2", "source": "x"}, {"prompt": "question", "chosen": "good"})
    {'source': 'x', 'prompt': '1+1?', 'chosen': '2'}
    """
    taken = set(columns.values())
    rest = {name: value for name, value in row.items() if name not in taken}
    return rest | {part: row.get(column) for part, column in columns.items()}


def union(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every column that some row has, in order of first appearance."""
    names: dict[str, None] = {}
    for row in rows:
        if not names.keys() >= row.keys():
            names.update(dict.fromkeys(row))
    return list(names)
