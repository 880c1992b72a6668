"""Every study of the lab: one import line and one name each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from setsail.core import ConfigError, nearest
from setsail.lab.studies.f_divergences import STUDY as F_DIVERGENCES
from setsail.lab.studies.online_offline import STUDY as ONLINE_OFFLINE
from setsail.lab.studies.published_hook import STUDY as PUBLISHED_HOOK
from setsail.lab.studies.records import Study, StudyResult
from setsail.lab.studies.sail_objective import STUDY as SAIL_OBJECTIVE
from setsail.lab.studies.sail_variance import STUDY as SAIL_VARIANCE
from setsail.lab.studies.samplers import STUDY as SAMPLERS
from setsail.lab.studies.sharpening import STUDY as SHARPENING

STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        study.name: study
        for study in (
            # SAIL.
            SAIL_OBJECTIVE,
            SAIL_VARIANCE,
            SHARPENING,
            PUBLISHED_HOOK,
            SAMPLERS,
            ONLINE_OFFLINE,
            F_DIVERGENCES,
        )
    }
)


def names() -> tuple[str, ...]:
    """Names of all studies, in the order of the catalogue."""
    return tuple(STUDIES)


def get(name: str) -> Study:
    """The study called ``name``.

    Raises:
        ConfigError: no such study; the message names the nearest one.

    >>> get("sail-objective").source
    'arXiv 2406.15567, the upper-level objective and its gradient'
    """
    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}{nearest(name, STUDIES)}; `setsail lab` lists all {len(STUDIES)}")
    return STUDIES[name]


def run(name: str) -> StudyResult:
    """What the study called ``name`` finds, and the CPU seconds it took.

    Raises:
        ConfigError: no such study.
    """
    study = get(name)
    began = time.process_time()
    result = study.find()
    return replace(result, seconds=time.process_time() - began)
