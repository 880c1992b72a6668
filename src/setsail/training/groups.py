"""Rows -> routes -> candidates -> judgements -> groups: everything that happens before log-probs are scored."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from setsail.core import Candidates, Completion, Engine, Group, Judgement, Labeler, Prompt, Row, Sampling, stream
from setsail.methods import Comparison, Method, Route, Source, compare
from setsail.training.mixture import draw_route

Visit = tuple[int, int]
"""``(epoch, row id)``: one visit of a row, the key of everything that is drawn for it."""
Gather = Callable[[list[Any]], list[Any]]
"""The concatenation of every process's list, the same on each."""
Score = Callable[[Sequence[Prompt], Sequence[Completion]], list[Tensor]]
"""Token log-probs of completions, one CPU tensor each."""
Margins = Callable[[Sequence[Candidates]], list[float]]
"""The implicit margin between the first two candidates of each prompt."""
ALIKE = 1e-4
"""Nats between two implicit margins that rounding can explain: which row is asked about must not hang on a batch."""


@dataclass(slots=True)
class MadeGroups:
    """The groups of some rows, by visit, with what it took to make them.

    Attributes:
        groups: groups of each visit; empty where the preference is missing or nothing could be compared.
        labeled: visits that a labeler was asked about, by route name.
        missing: those of them whose preference could not be obtained, wholly or in part.
        scores: what a labeler scored the candidates with, chosen or not, by route name.
        seconds: wall-clock of generation and of labeling.
    """

    groups: dict[Visit, tuple[Group, ...]] = field(default_factory=dict)
    labeled: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    missing: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    scores: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, float] = field(default_factory=lambda: {"generation": 0.0, "labeling": 0.0})


@dataclass(frozen=True, slots=True)
class _Visited:
    """A row on its route, with the candidates found so far."""

    row: Row
    route: Route
    completions: dict[int, tuple[Completion, ...]] = field(default_factory=dict)

    def candidates(self, policy_version: int, epoch: int) -> Candidates:
        ordered = [one for position in sorted(self.completions) for one in self.completions[position]]
        return Candidates(
            prompt=self.row.prompt,
            completions=tuple(ordered),
            policy_version=policy_version if self.route.draws else None,
            stream=("sample", self.row.prompt.row_id, epoch) if self.route.draws else (),
        )


class GroupMaker:
    """Makes the groups of rows under one method. Holds no state: what it makes depends on its arguments alone.

    Args:
        method: the method.
        engine: ``source -> engine`` that draws its candidates.
        labeler: who compares candidates of routes with ``preference="labeler"``.
        implicit: the same for ``preference="implicit"``.
        margins: implicit margins of candidates, for routes that ask the labeler about some only.
        gather: joins the lists of all processes.
        sampling, n, seed: how completions are drawn, how many where a source leaves it open, and from which streams.
    """

    def __init__(
        self,
        method: Method,
        engine: Callable[[Source], Engine] | None,
        labeler: Labeler | None,
        *,
        sampling: Sampling,
        n: int,
        seed: int,
        implicit: Labeler | None = None,
        margins: Margins | None = None,
        gather: Gather = list,
    ) -> None:
        self.method, self.engine = method, engine
        self.labelers = {"labeler": labeler, "implicit": implicit}
        self.sampling, self.n, self.seed = sampling, n, seed
        self.margins, self.gather = margins, gather

    def route(self, epoch: int, row: Row) -> Route | None:
        """The route this visit of the row takes."""
        return draw_route(self.method, self.seed, row.prompt.row_id, epoch)

    def make(self, epoch: int, rows: Sequence[Row], *, policy_version: int) -> MadeGroups:
        """The groups of ``rows``; completions that are to be drawn are drawn from the current weights, all at once."""
        made = MadeGroups()
        visited: list[_Visited] = []
        for row in rows:
            route = self.route(epoch, row)
            if route is None:
                made.groups[epoch, row.prompt.row_id] = tuple(offline_groups(row, self.method, epoch))
            else:
                visited.append(_Visited(row, route))
        self._find_candidates(epoch, visited, policy_version, made)
        found = [(each.route, each.candidates(policy_version, epoch)) for each in visited]
        for preference, labeler in self.labelers.items():
            asked = [(route, group) for route, group in found if route.preference == preference]
            if preference == "labeler":
                asked = self._acquired(asked, made, epoch)
            self._label(epoch, asked, labeler, made)
        for route, group in found:
            if route.preference not in self.labelers:
                made.groups[epoch, group.prompt.row_id] = self._groups(route, group, None, epoch)
        return made

    def _find_candidates(self, epoch: int, visited: Sequence[_Visited], policy_version: int, made: MadeGroups) -> None:
        """Fill in every visit's completions: the row's own at once, the others drawn source by source."""
        drawing: dict[tuple[int, Source], list[_Visited]] = {}
        for each in visited:
            for position, source in enumerate(each.route.candidates):
                if source.is_drawn:
                    drawing.setdefault((position, source), []).append(each)
                else:
                    each.completions[position] = (_given(each.row, source),)
        started = time.perf_counter()
        for (position, source), those in drawing.items():
            assert self.engine is not None, "a route draws completions, but no engine was given"
            # The first source keeps the plain name, so that a route's draws do not depend on what else it compares.
            path = () if position == 0 else (position,)
            groups = self.engine(source).generate(
                [each.row.prompt for each in those],
                n=self.n if source.count is None else source.count,
                sampling=source.settings(self.sampling),
                streams=[("sample", each.row.prompt.row_id, epoch, *path) for each in those],
                seed=self.seed,
                policy_version=policy_version,
            )
            for each, group in zip(those, groups, strict=True):
                each.completions[position] = tuple(replace(one, origin=str(source.origin)) for one in group.completions)
        if drawing:
            made.seconds["generation"] += time.perf_counter() - started

    def _acquired(
        self, asked: Sequence[tuple[Route, Candidates]], made: MadeGroups, epoch: int
    ) -> list[tuple[Route, Candidates]]:
        """What is worth a label: of routes that ask about some only, the candidates of largest implicit margin.

        Chosen among the rows of all processes. Where margins are alike (at the start all are 0) chance decides, by a
        draw of each row's own.
        """
        kept = [(route, group) for route, group in asked if route.acquire == 1]
        for route in self.method.active_routes:
            if route.acquire == 1:
                continue
            mine = [group for each, group in asked if each.name == route.name]
            assert self.margins is not None, "a route chooses what to label, but there is nothing to choose by"
            ranked = []
            for margin, group in zip(self.margins(mine), mine, strict=True):
                row_id = group.prompt.row_id
                chance = float(stream(self.seed, "acquire", row_id, epoch).random())
                ranked.append((-round(abs(margin) / ALIKE), chance, row_id))
            everyone = sorted(self.gather(ranked))
            count = math.ceil(route.acquire * len(everyone) - 1e-9)
            worth = {row_id for *_, row_id in everyone[:count]}
            kept += [(route, group) for group in mine if group.prompt.row_id in worth]
            for group in mine:
                made.groups[epoch, group.prompt.row_id] = ()
        return kept

    def _label(
        self, epoch: int, labeling: Sequence[tuple[Route, Candidates]], labeler: Labeler | None, made: MadeGroups
    ) -> None:
        if not labeling:
            return
        assert labeler is not None, "a route needs a labeler, but none was given"
        started = time.perf_counter()
        judgements = labeler.label([group for _, group in labeling])
        made.seconds["labeling"] += time.perf_counter() - started
        for (route, group), judgement in zip(labeling, judgements, strict=True):
            groups = self._groups(route, group, judgement, epoch)
            kept = tuple(each for each in groups if self._is_usable(each))
            made.groups[epoch, group.prompt.row_id] = kept
            unscored = None in judgement.scores if judgement.scores is not None else _has_gap(judgement)
            made.labeled[route.name] += 1
            made.missing[route.name] += int(len(kept) < len(groups) or (not groups and unscored))
            made.scores[route.name] += [score for score in judgement.scores or () if score is not None]

    def _is_usable(self, group: Group) -> bool:
        """Whether the objective can read it: a pair's preference, or a value of each completion."""
        return (group.values if self.method.reads_values else group.p) is not None

    def _groups(
        self, route: Route, candidates: Candidates, judgement: Judgement | None, epoch: int
    ) -> tuple[Group, ...]:
        draw = partial(_choice, self.seed, candidates.prompt.row_id, epoch)
        found = compare(route, judgement, len(candidates.completions), draw)
        return tuple(
            self._group(route, candidates, judgement, epoch, comparison, is_first=number == 0)
            for number, comparison in enumerate(found)
        )

    def _group(
        self,
        route: Route,
        candidates: Candidates,
        judgement: Judgement | None,
        epoch: int,
        comparison: Comparison,
        *,
        is_first: bool,
    ) -> Group:
        scores = judgement.scores if judgement is not None else None
        compared = comparison.indices
        # Read by added terms whether they are compared or not, once a row.
        others = [one for i, one in enumerate(candidates.completions) if i not in compared] if is_first else []
        return Group(
            prompt=candidates.prompt,
            completions=tuple(candidates.completions[i] for i in compared),
            others=tuple(one for one in others if one.origin in self._read_by_addends),
            p=comparison.p,
            values=comparison.values,
            route=route.name,
            labeler=_labeler_name(route, judgement),
            scores=None if scores is None else tuple(scores[i] for i in compared),
            policy_version=candidates.policy_version,
            stream=candidates.stream,
            epoch=epoch,
        )

    @property
    def _read_by_addends(self) -> set[str]:
        return {addend.samples for addend in self.method.addends if addend.coefficient}


def _labeler_name(route: Route, judgement: Judgement | None) -> str:
    if judgement is not None:
        return judgement.labeler
    return "policy" if route.is_self_labeled else "construction"


def _choice(seed: int, row_id: int, epoch: int) -> float:
    return float(stream(seed, "pairing", row_id, epoch).random())


def _has_gap(judgement: Judgement) -> bool:
    return any(value is None for row in judgement.preference for value in row)


def _given(row: Row, source: Source) -> Completion:
    """The row's own answer."""
    completion = row.chosen if source.origin == "chosen" else row.rejected
    assert completion is not None, "a route reads the data set's answers, but the row has only a prompt"
    return completion


def offline_groups(row: Row, method: Method, epoch: int) -> list[Group]:
    """The row's own answers with its own preference, in the form that the method reads them.

    Pairs carry p; an objective over groups reads p and 1 - p as their values. A list is one group of all scored
    answers, or the pair where the row has no more; single answers are marked +1 or -1.
    """
    shared: dict[str, Any] = {"prompt": row.prompt, "route": "offline", "labeler": "dataset", "epoch": epoch}
    if method.form != "pairs" and row.answers:
        if method.form == "lists":
            return [Group(completions=row.answers, values=row.scores, scores=row.scores, **shared)]
        marked = zip(row.answers, row.scores, strict=True)
        return [Group(completions=(one,), values=(score,), **shared) for one, score in marked]
    assert row.chosen is not None
    assert row.rejected is not None
    pair = (row.chosen, row.rejected)
    if method.form == "singles":
        sign = 1.0 if row.p >= 0.5 else -1.0
        return [
            Group(completions=(one,), values=(mark,), **shared) for one, mark in zip(pair, (sign, -sign), strict=True)
        ]
    values = (row.p, 1 - row.p) if method.reads_values else None
    return [Group(completions=pair, p=row.p, values=values, **shared)]
