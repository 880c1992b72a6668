"""Every study of the lab: one import line and one name each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from setsail.core import ConfigError, nearest
from setsail.lab.studies.egpo import STUDY as EGPO
from setsail.lab.studies.exploration import STUDY as EXPLORATION
from setsail.lab.studies.f_divergences import STUDY as F_DIVERGENCES
from setsail.lab.studies.hard_labels import STUDY as HARD_LABELS
from setsail.lab.studies.momentum import STUDY as MOMENTUM
from setsail.lab.studies.nash_md import STUDY as NASH_MD
from setsail.lab.studies.online_offline import STUDY as ONLINE_OFFLINE
from setsail.lab.studies.over_optimization import STUDY as OVER_OPTIMIZATION
from setsail.lab.studies.published_hook import STUDY as PUBLISHED_HOOK
from setsail.lab.studies.records import Study, StudyResult
from setsail.lab.studies.rounds import STUDY as ROUNDS
from setsail.lab.studies.sail_objective import STUDY as SAIL_OBJECTIVE
from setsail.lab.studies.sail_variance import STUDY as SAIL_VARIANCE
from setsail.lab.studies.samplers import STUDY as SAMPLERS
from setsail.lab.studies.self_play import STUDY as SELF_PLAY
from setsail.lab.studies.sharpening import STUDY as SHARPENING
from setsail.lab.studies.soup import STUDY as SOUP

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
            # Rounds and references; exploration; learnt rewards.
            ROUNDS,
            MOMENTUM,
            SOUP,
            EXPLORATION,
            OVER_OPTIMIZATION,
            # Preference games.
            EGPO,
            NASH_MD,
            SELF_PLAY,
            HARD_LABELS,
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
