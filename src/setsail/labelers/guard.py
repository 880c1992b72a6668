"""The guard around a labeler: failures become missing preferences, too many of them stop the run."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from setsail.core import Candidates, ConfigError, Judgement, Labeler, LabelerError
from setsail.labelers.calling import describe
from setsail.labelers.scores import missing_judgement

logger = logging.getLogger("setsail")

MOST_REASONS_SHOWN = 20
SILENT_CALLS = 3


class MissingGuard:
    """Keeps a labeler honest: whatever goes wrong in it is *missing*, counted, and never a preference.

    Any ``Exception`` of the labeler makes the whole call missing; an interrupt passes through, and so does
    :class:`~setsail.core.ConfigError`, by which a labeler says that it cannot work as it was set up. A judgement
    that is not one, has the wrong shape, or holds something that is no probability makes its group missing. Each
    distinct reason is logged once, as a warning of the logger ``setsail``.

    A pair counts as seen once per unordered pair of candidates, and as missing if either direction is.

    Args:
        labeler: the labeler to guard.
        max_missing_rate: the largest tolerated share of missing pairs among all pairs seen, in [0, 1].
        min_seen: number of pairs from which on the share is looked at.

    Attributes:
        seen, missing: pairs so far.
        last_reason: why the last missing pair is missing; empty if none was.

    Raises:
        ConfigError: ``max_missing_rate`` outside [0, 1] or ``min_seen`` below 1.
        LabelerError: when labeling: ``missing / seen > max_missing_rate`` with at least ``min_seen`` pairs seen, or
            everything so far missing after ``min_seen`` pairs or three calls, whichever comes first.

    >>> from setsail.core import Completion, Prompt
    >>> from setsail.labelers import Scripted
    >>> group = Candidates(prompt=Prompt(row_id=0, text="q", token_ids=(1,)),
    ...                    completions=(Completion(token_ids=(2,), text="a"), Completion(token_ids=(3,), text="b")))
    >>> guard = MissingGuard(Scripted({("q", "a"): 1.0, ("q", "b"): 0.0}))
    >>> _ = guard.label([group, group])
    >>> guard.seen, guard.missing
    (2, 0)
    """

    def __init__(self, labeler: Labeler, max_missing_rate: float = 0.5, min_seen: int = 32) -> None:
        if not 0 <= max_missing_rate <= 1:
            raise ConfigError(f"max_missing_rate={max_missing_rate}: it is a share of pairs, between 0 and 1")
        if min_seen < 1:
            raise ConfigError(f"min_seen={min_seen}: it is a number of pairs, at least 1")
        self.labeler = labeler
        self.name = labeler.name
        self.max_missing_rate = max_missing_rate
        self.min_seen = min_seen
        self.seen = 0
        self.missing = 0
        self.last_reason = ""
        self._calls = 0
        self._warned: set[str] = set()

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """One sound judgement a group, in order.

        Raises:
            LabelerError: too many are missing; see the class.
        """
        judgements = self._checked(groups)
        for judgement in judgements:
            self._count(judgement)
        if any(len(group.completions) > 1 for group in groups):
            self._calls += 1
            self._stop_if_too_many()
        return judgements

    def state_dict(self) -> dict[str, Any]:
        """The counts, as plain values for a checkpoint."""
        return {"seen": self.seen, "missing": self.missing, "calls": self._calls, "last_reason": self.last_reason}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a checkpoint's :meth:`state_dict`."""
        self.seen = int(state["seen"])
        self.missing = int(state["missing"])
        self._calls = int(state["calls"])
        self.last_reason = str(state["last_reason"])

    def _checked(self, groups: Sequence[Candidates]) -> list[Judgement]:
        try:
            judgements = list(self.labeler.label(groups))
        except ConfigError:  # the labeler itself says that it cannot work as set up: waiting would not help
            raise
        except Exception as error:
            return [self._nothing(group, describe(error)) for group in groups]
        if len(judgements) != len(groups):
            reason = f"it returned {len(judgements)} judgements for {len(groups)} groups"
            return [self._nothing(group, reason) for group in groups]
        faults = [
            _fault(judgement, len(group.completions)) for judgement, group in zip(judgements, groups, strict=True)
        ]
        return [
            self._nothing(group, fault) if fault else judgement
            for judgement, group, fault in zip(judgements, groups, faults, strict=True)
        ]

    def _nothing(self, group: Candidates, reason: str) -> Judgement:
        return missing_judgement(len(group.completions), labeler=self.name, reason=reason)

    def _count(self, judgement: Judgement) -> None:
        matrix = judgement.preference
        pairs = [(i, j) for i in range(len(matrix)) for j in range(i)]
        missing = sum(matrix[i][j] is None or matrix[j][i] is None for i, j in pairs)
        self.seen += len(pairs)
        self.missing += missing
        if missing:
            self.last_reason = judgement.reason or "the labeler gave no reason"
            self._warn_once(self.last_reason)

    def _warn_once(self, reason: str) -> None:
        # Reasons that differ in a number only (a row, a count, a port) are the same reason.
        key = re.sub(r"\d+", "#", reason)
        if key in self._warned or len(self._warned) > MOST_REASONS_SHOWN:
            return
        self._warned.add(key)
        if len(self._warned) > MOST_REASONS_SHOWN:
            logger.warning("labeler %r: more than %d kinds of reason; no more are shown", self.name, MOST_REASONS_SHOWN)
            return
        logger.warning("labeler %r: preference missing: %s (pairs without one are dropped)", self.name, reason)

    def _stop_if_too_many(self) -> None:
        silent = self.missing == self.seen and (self.seen >= self.min_seen or self._calls >= SILENT_CALLS)
        too_many = self.seen >= self.min_seen and self.missing > self.max_missing_rate * self.seen
        if not (silent or too_many):
            return
        tolerated = "" if silent else f" (at most {self.max_missing_rate:.0%} may be)"
        raise LabelerError(
            f"labeler {self.name!r}: {self.missing} of {self.seen} preferences are missing{tolerated}; last reason: "
            f"{self.last_reason}. Repair the labeler, or raise max_missing_rate if that many pairs have no answer by "
            "nature"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(float(value))


def _fault(judgement: Any, count: int) -> str:
    """What is wrong with a judgement of ``count`` candidates; empty if nothing is."""
    if not isinstance(judgement, Judgement):
        return f"it returned a {type(judgement).__name__} where a Judgement is due"
    matrix = judgement.preference
    if len(matrix) != count or any(len(row) != count for row in matrix):
        widths = sorted({len(row) for row in matrix})
        return f"its preference matrix has {len(matrix)} rows of {widths} entries for {count} candidates"
    for value in (value for row in matrix for value in row):
        if value is not None and not (_is_number(value) and 0 <= value <= 1):
            return f"its preference {value!r} is no probability"
    scores = judgement.scores
    if scores is not None and len(scores) != count:
        return f"it gave {len(scores)} scores for {count} candidates"
    for score in scores or ():
        if score is not None and not _is_number(score):
            return f"its score {score!r} is not a finite number"
    return ""
