"""Rows -> routes -> candidates -> judgements -> pairs: everything that happens before log-probs are scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from setsail.core import Candidates, Engine, Judgement, Labeler, Pair, Row, Sampling
from setsail.methods import Method, Route
from setsail.pairing import RULES
from setsail.training.mixture import draw_route

Visit = tuple[int, int]
"""``(epoch, row id)``: one visit of a row, the key of everything that is drawn for it."""


@dataclass(slots=True)
class MadePairs:
    """The pairs of some rows, by visit, with what it took to make them.

    Attributes:
        pairs: pairs of each visit; empty where the preference is missing or nothing could be compared.
        labeled: visits that a labeler was asked about, by route name.
        missing: those of them whose preference could not be obtained, wholly or in part.
        seconds: wall-clock of generation and of labeling.
    """

    pairs: dict[Visit, tuple[Pair, ...]] = field(default_factory=dict)
    labeled: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"generation": 0.0, "labeling": 0.0})


class PairMaker:
    """Makes the pairs of rows under one method. Holds no state: what it makes depends on its arguments alone."""

    def __init__(
        self, method: Method, engine: Engine | None, labeler: Labeler | None, *, sampling: Sampling, n: int, seed: int
    ) -> None:
        self.method, self.engine, self.labeler = method, engine, labeler
        self.sampling, self.n, self.seed = sampling, n, seed

    def route(self, epoch: int, row: Row) -> Route | None:
        """The route this visit of the row takes."""
        return draw_route(self.method, self.seed, row.prompt.row_id, epoch)

    def make(self, epoch: int, rows: Sequence[Row], *, policy_version: int) -> MadePairs:
        """The pairs of ``rows``; completions that are to be drawn are drawn from the current weights, all at once."""
        made = MadePairs()
        drawing: list[tuple[Row, Route]] = []
        labeling: list[tuple[Route, Candidates]] = []
        for row in rows:
            route = self.route(epoch, row)
            if route is not None and route.responses == "policy":
                drawing.append((row, route))
            elif route is not None and route.preference == "labeler":
                labeling.append((route, _given(row)))
            else:
                made.pairs[epoch, row.prompt.row_id] = (_dataset_pair(row, route, epoch),)
        for (_, route), group in zip(drawing, self._draw(epoch, drawing, policy_version, made), strict=True):
            if route.preference == "labeler":
                labeling.append((route, group))
            else:
                made.pairs[epoch, group.prompt.row_id] = _pairs(route, group, None, epoch)
        self._label(epoch, labeling, made)
        return made

    def _draw(
        self, epoch: int, drawing: Sequence[tuple[Row, Route]], policy_version: int, made: MadePairs
    ) -> list[Candidates]:
        if not drawing:
            return []
        assert self.engine is not None, "a route draws from the policy, but no engine was given"
        started = time.perf_counter()
        groups = self.engine.generate(
            [row.prompt for row, _ in drawing],
            n=self.n,
            sampling=self.sampling,
            streams=[("sample", row.prompt.row_id, epoch) for row, _ in drawing],
            seed=self.seed,
            policy_version=policy_version,
        )
        made.seconds["generation"] += time.perf_counter() - started
        return groups

    def _label(self, epoch: int, labeling: Sequence[tuple[Route, Candidates]], made: MadePairs) -> None:
        if not labeling:
            return
        assert self.labeler is not None, "a route needs a labeler, but none was given"
        started = time.perf_counter()
        judgements = self.labeler.label([group for _, group in labeling])
        made.seconds["labeling"] += time.perf_counter() - started
        for (route, group), judgement in zip(labeling, judgements, strict=True):
            pairs = _pairs(route, group, judgement, epoch)
            kept = tuple(pair for pair in pairs if pair.p is not None)
            made.pairs[epoch, group.prompt.row_id] = kept
            unscored = judgement.scores is not None and None in judgement.scores
            missing = len(kept) < len(pairs) or (not pairs and unscored)
            made.labeled[route.name] = made.labeled.get(route.name, 0) + 1
            made.missing[route.name] = made.missing.get(route.name, 0) + int(missing)


def _given(row: Row) -> Candidates:
    """The data set's two completions as candidates to be labeled again."""
    assert row.chosen is not None
    assert row.rejected is not None
    return Candidates(prompt=row.prompt, completions=(row.chosen, row.rejected), source="dataset")


def _dataset_pair(row: Row, route: Route | None, epoch: int) -> Pair:
    """The row's own pair: offline, or to be labeled by the policy inside the loss."""
    assert row.chosen is not None
    assert row.rejected is not None
    return Pair(
        prompt=row.prompt,
        first=row.chosen,
        second=row.rejected,
        p=row.p if route is None else None,
        route="offline" if route is None else route.name,
        labeler="dataset" if route is None else "policy",
        epoch=epoch,
    )


def _pairs(route: Route, group: Candidates, judgement: Judgement | None, epoch: int) -> tuple[Pair, ...]:
    scores = judgement.scores if judgement is not None else None
    indices = RULES[route.pairing](len(group.completions), scores)
    return tuple(_pair(route, group, judgement, epoch, i, j) for i, j in indices)


def _pair(route: Route, group: Candidates, judgement: Judgement | None, epoch: int, i: int, j: int) -> Pair:
    scored = judgement is not None and judgement.scores is not None
    return Pair(
        prompt=group.prompt,
        first=group.completions[i],
        second=group.completions[j],
        p=judgement.preference[i][j] if judgement is not None else None,
        route=route.name,
        labeler=judgement.labeler if judgement is not None else "policy",
        scores=(judgement.scores[i], judgement.scores[j]) if scored else None,  # type: ignore[index,union-attr]
        policy_version=group.policy_version,
        stream=group.stream,
        epoch=epoch,
    )
