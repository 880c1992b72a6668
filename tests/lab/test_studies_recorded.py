"""Every study, run again, finds what its page shows; the same bytes twice; within its time."""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from setsail.core import ConfigError
from setsail.lab import studies
from setsail.lab.studies import StudyResult, to_json

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "lab" / "results"
RELATIVE, ABSOLUTE = 1e-5, 1e-8
# Studies whose time allows a second run from scratch.
QUICK = [study.name for study in studies.STUDIES.values() if study.seconds <= 2]


@cache
def found(name: str) -> StudyResult:
    return studies.run(name)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Places at which two JSON values differ by more than rounding."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [place for key in one for place in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [place for i in range(len(one)) for place in differences(one[i], other[i], f"{where}/{i}")]
    if isinstance(one, int | float) and isinstance(other, int | float) and not isinstance(one, bool):
        close = abs(one - other) <= ABSOLUTE + RELATIVE * max(abs(one), abs(other))
        return [] if close or where.endswith("/seconds") else [f"{where}: {one} against {other}"]
    return [] if one == other else [f"{where}: {one!r} against {other!r}"]


@pytest.mark.parametrize("name", studies.names())
def test_a_study_finds_what_is_recorded(name: str) -> None:
    recorded = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    again = json.loads(to_json(studies.get(name), found(name)))
    apart = differences(recorded, again)
    assert not apart, f"run `python tests/docs/lab_pages.py {name}` if this is meant: {apart[:5]}"


@pytest.mark.parametrize("name", studies.names())
def test_a_study_keeps_its_time(name: str) -> None:
    assert studies.get(name).seconds <= 30
    # Other processes may share the core's caches and clock.
    assert found(name).seconds <= 2 * studies.get(name).seconds + 5


def test_all_studies_together_take_less_than_eight_minutes() -> None:
    assert sum(study.seconds for study in studies.STUDIES.values()) < 8 * 60


@pytest.mark.parametrize("name", studies.names())
def test_claims_that_are_recorded_as_reproduced_are(name: str) -> None:
    for claim, recorded in zip(found(name).claims, studies.read_json(RESULTS / f"{name}.json").claims, strict=True):
        assert claim.reproduced == recorded.reproduced, claim.sentence


@pytest.mark.parametrize("name", QUICK)
def test_a_second_run_from_scratch_gives_the_same_bytes(name: str) -> None:
    module = importlib.import_module(studies.get(name).find.__module__)
    fresh = importlib.reload(module)
    texts = []
    for result in (found(name), fresh.STUDY.find()):
        plain = json.loads(to_json(studies.get(name), result))
        texts.append(json.dumps({**plain, "seconds": 0}))
    assert texts[0] == texts[1]


def test_an_unknown_study_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no study 'sharpenning'; did you mean 'sharpening'"):
        studies.get("sharpenning")


def test_the_comparison_notices_what_differs() -> None:
    one = {"a": [1.0, 2.0, None], "seconds": 1.0, "s": "x"}
    assert not differences(one, {"a": [1.0, 2.000001, None], "seconds": 9.0, "s": "x"})
    assert differences(one, {"a": [1.0, 2.001, None], "seconds": 1.0, "s": "x"}) == ["/a/1: 2.0 against 2.001"]
    assert differences(one, {"a": [1.0, 2.0], "seconds": 1.0, "s": "x"})
    assert differences(one, {"a": [1.0, 2.0, 0.0], "seconds": 1.0, "s": "x"})
    assert differences(one, {"a": [1.0, 2.0, None], "seconds": 1.0, "s": "y"})
