"""Weighted groups: everything that one row can turn into on a route, every candidate and every choice enumerated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from setsail.core import Judgement, Sampling, SpecError
from setsail.lab.pairs import WeightedPairs, bradley_terry
from setsail.methods import Comparison, Method, Route, Source, comparison_law
from setsail.objectives import GroupLogProbs
from setsail.policies.tabular import EnumerablePolicy
from setsail.policies.tabular_sampling import mixture, reshaped


@dataclass(frozen=True, slots=True)
class TabularWorld:
    """What a method trains on, apart from the policy.

    Attributes:
        reference: the reference policy.
        data: the data set's pairs and preferences.
        preference: the labeler, ``P[x, i, j]``, shape ``(prompts, responses, responses)``.
        reward: the labeler's scores, shape ``(prompts, responses)``; None for one that only compares.
        opponent: another frozen policy, for methods that have one.
    """

    reference: EnumerablePolicy
    data: WeightedPairs
    preference: Tensor
    reward: Tensor | None = None
    opponent: EnumerablePolicy | None = None


@dataclass(frozen=True, slots=True)
class WeightedGroups:
    """Groups of one size that can occur, with their probability. Axis legend: ``groups``, ``K`` members of each.

    Attributes:
        prompt: index of the prompt, shape ``(groups,)``.
        members: indices of the responses, shape ``(groups, K)``.
        weight: probability, a row's groups sharing that of the row; together at most 1: rows that give no group learn
            nothing. No gradient.
        p: probability that the first is preferred; None where there is none.
        values: one number a member; None where there is none.
    """

    prompt: Tensor
    members: Tensor
    weight: Tensor
    p: Tensor | None
    values: Tensor | None

    def log_probs(self, policy: EnumerablePolicy, reference: EnumerablePolicy) -> GroupLogProbs:
        """The record that objectives read; only the policy's part carries gradient."""
        at = self.prompt.unsqueeze(-1), self.members
        frozen = reference.log_probs().detach()
        return GroupLogProbs(policy.log_probs()[at], frozen[at], policy.lengths()[self.members])


@dataclass(frozen=True, slots=True)
class CandidateDraw:
    """One possible set of candidates of a row: responses in the order of the route's sources, and its probability."""

    prompt: int
    responses: tuple[int, ...]
    origins: tuple[str, ...]
    chance: float


def candidate_law(
    method: Method, route: Route, sampler: EnumerablePolicy, world: TabularWorld
) -> Iterator[CandidateDraw]:
    """Every set of candidates that a row may get on ``route``, with its probability; they sum to 1.

    Args:
        method: says how many candidates an open source draws.
        sampler: the policy of the moment that completions are drawn.
    """
    sources = [source for source in route.candidates for _ in range(_count(source, method))]
    origins = tuple(str(source.origin) for source in sources)
    tables = {source: _law_of(source, sampler, world) for source in set(sources) if source.is_drawn}
    rows: list[tuple[int, int | None, int | None, float]]
    if route.needs_dataset_answers:
        data = world.data
        columns = (data.prompt.tolist(), data.first.tolist(), data.second.tolist(), data.weight.tolist())
        rows = list(zip(*columns, strict=True))
    else:
        prompts = sampler.log_probs().shape[0]
        rows = [(prompt, None, None, 1 / prompts) for prompt in range(prompts)]
    for prompt, chosen, rejected, weight in rows:
        given = {"chosen": chosen, "rejected": rejected}
        options = [
            _drawn(tables[source], prompt) if source.is_drawn else [(given[source.origin], 1.0)] for source in sources
        ]
        for drawn in product(*options):
            chance = weight
            for _, probability in drawn:
                chance *= probability
            if chance > 0:
                responses = tuple(int(response) for response, _ in drawn if response is not None)
                yield CandidateDraw(prompt, responses, origins, chance)


def route_groups(method: Method, route: Route, sampler: EnumerablePolicy, world: TabularWorld) -> list[WeightedGroups]:
    """The groups of one row on ``route``, one entry a group size.

    What is compared, and under which label, is decided by :func:`setsail.methods.compare`'s law, as in training.
    """
    found: dict[int, list[tuple[int, tuple[int, ...], float, Comparison]]] = defaultdict(list)
    for draw, chance, comparisons in outcomes(method, route, sampler, world):
        for comparison in comparisons:
            members = tuple(draw.responses[i] for i in comparison.indices)
            found[len(members)].append((draw.prompt, members, chance / len(comparisons), comparison))
    return [_stacked(entries) for entries in found.values()]


def outcomes(
    method: Method, route: Route, sampler: EnumerablePolicy, world: TabularWorld
) -> Iterator[tuple[CandidateDraw, float, list[Comparison]]]:
    """Every draw of candidates with every choice among them: what is compared, and the probability of all that."""
    judge = _labeler(route, world)
    for draw in candidate_law(method, route, sampler, world):
        judgement = judge(draw)
        for chance, comparisons in comparison_law(route, judgement, len(draw.responses)):
            yield draw, draw.chance * chance, comparisons


def _stacked(entries: list[tuple[int, tuple[int, ...], float, Comparison]]) -> WeightedGroups:
    prompts, members, shares, comparisons = zip(*entries, strict=True)
    p = [comparison.p for comparison in comparisons]
    values = [comparison.values for comparison in comparisons]
    return WeightedGroups(
        torch.tensor(prompts),
        torch.tensor(members),
        torch.tensor(shares, dtype=torch.float64),
        None if None in p else torch.tensor(p, dtype=torch.float64),
        None if None in values else torch.tensor(values, dtype=torch.float64),
    )


def _count(source: Source, method: Method) -> int:
    return method.generations if source.count is None else source.count


def _law_of(source: Source, sampler: EnumerablePolicy, world: TabularWorld) -> Tensor:
    """Probabilities of a source's draws, shape ``(prompts, responses)``."""
    if source.origin == "policy":
        policy = sampler
    elif source.origin == "reference":
        policy = world.reference
    elif source.origin == "mixture":
        policy = mixture(sampler, world.reference, source.share)
    elif world.opponent is None:
        raise SpecError("a route draws from the opponent, but this world has none")
    else:
        policy = world.opponent
    return reshaped(policy, source.settings(Sampling())).log_probs().detach().exp()


def _drawn(table: Tensor, prompt: int) -> list[tuple[int, float]]:
    return list(enumerate(table[prompt].tolist()))


def _labeler(route: Route, world: TabularWorld) -> Callable[[CandidateDraw], Judgement | None]:
    """What the world's labeler says of some candidates; for implicit labels, what the last round taught."""
    if route.preference not in ("labeler", "implicit"):
        return lambda draw: None
    reward, preference = world.reward, world.preference
    if route.preference == "implicit":
        if world.opponent is None:
            raise SpecError(f"route {route.name!r} labels by reference and opponent, but this world has no opponent")
        reward = world.reference.log_probs().detach() - world.opponent.log_probs().detach()
        preference = bradley_terry(reward)
    # Lists: looked up for every draw.
    matrices: list[list[list[float]]] = preference.tolist()
    scores: list[list[float]] | None = None if reward is None else reward.tolist()

    def judge(draw: CandidateDraw) -> Judgement:
        matrix, answers = matrices[draw.prompt], draw.responses
        return Judgement(
            preference=tuple(tuple(matrix[i][j] for j in answers) for i in answers),
            scores=None if scores is None else tuple(scores[draw.prompt][i] for i in answers),
            labeler="the world",
        )

    return judge
