"""Studies' results as JSON: the same bytes for the same numbers, and back.

Numbers keep ten significant digits: more than a figure or a table shows, fewer than rounding would change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table

DIGITS = 10


def as_plain(value: Any) -> Any:
    """Records as dictionaries and lists of numbers and strings; a number that is not finite is None.

    >>> as_plain(Claim(sentence="s", measured=1 / 3, expected=0.3, tolerance=0.1))["measured"]
    0.3333333333
    """
    if is_dataclass(value) and not isinstance(value, type):
        plain = {item.name: as_plain(getattr(value, item.name)) for item in fields(value)}
        return {**plain, "reproduced": value.reproduced} if isinstance(value, Claim) else plain
    if isinstance(value, Mapping):
        return {str(key): as_plain(each) for key, each in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Sequence):
        return [as_plain(each) for each in value]
    return _number(value)


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    # Adding zero turns -0.0 into 0.0.
    return float(f"{value:.{DIGITS}g}") + 0.0


def to_json(study: Study, result: StudyResult) -> str:
    """The result with what the study says about itself, laid out so that a change of one number changes one line."""
    about = {name: getattr(study, name) for name in ("name", "question", "result", "source")}
    return _laid_out({**about, **as_plain(result)}) + "\n"


def _laid_out(plain: Any, indent: str = "") -> str:
    """JSON; what holds no further lists or mappings stands on one line."""
    parts = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    if not any(isinstance(part, dict | list) for part in parts):
        return json.dumps(plain, ensure_ascii=False, allow_nan=False)
    deeper = indent + " "
    if isinstance(plain, dict):
        lines = [f"{deeper}{json.dumps(key)}: {_laid_out(part, deeper)}" for key, part in plain.items()]
    else:
        lines = [deeper + _laid_out(part, deeper) for part in plain]
    opened, closed = "{}" if isinstance(plain, dict) else "[]"
    return opened + "\n" + ",\n".join(lines) + "\n" + indent + closed


def read_json(path: Path) -> StudyResult:
    """The result that :func:`to_json` wrote to a file."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    return StudyResult(
        tables=[Table(**table) for table in plain["tables"]],
        claims=[
            Claim(**{name: value for name, value in claim.items() if name != "reproduced"}) for claim in plain["claims"]
        ],
        figures=[_figure(figure) for figure in plain["figures"]],
        seconds=plain["seconds"],
    )


def _figure(plain: Mapping[str, Any]) -> Figure:
    panels = [
        Panel(**{**panel, **_ranges(panel), "curves": [Curve(**curve) for curve in panel["curves"]]})
        for panel in plain["panels"]
    ]
    return Figure(name=plain["name"], title=plain["title"], panels=panels)


def _ranges(panel: Mapping[str, Any]) -> dict[str, tuple[float, float] | None]:
    return {side: panel[side] and (panel[side][0], panel[side][1]) for side in ("x_range", "y_range")}
