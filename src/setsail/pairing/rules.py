"""Rules that turn K candidates of a prompt into the groups that are compared: index tuples, mostly pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from setsail.core import SpecError, nearest

Matrix = Sequence[Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a prompt's candidates when it is decided which of them are compared.

    Attributes:
        count: number of candidates.
        values: what they are ranked by: the labeler's scores, or win rates where it gives preferences only; None
            before anything is known, None for a candidate whose value is missing.
        preference: ``preference[i][j]``, the probability that i is preferred to j.
    """

    count: int
    values: Sequence[float | None] | None = None
    preference: Matrix | None = None


Groups = list[tuple[int, ...]]
"""Index tuples of candidates that are compared with each other; an empty list = nothing to compare."""


@dataclass(frozen=True, slots=True)
class PairingRule:
    """A rule with what its users must know about it.

    Attributes:
        name: as written in a route, its parameter included.
        law: ``standing -> [(probability, groups), ...]``: what it may choose, and how likely; one entry of probability
            1 for most rules.
        reads_values: whether it chooses by value: its groups are no longer independent draws of the policy, so the
            online correction does not apply to them.
        size: completions in each group; None = all candidates.
        as_drawn: whether a policy gradient counts what it keeps as plain draws: it keeps everything, or it is a filter
            whose paper does so.
    """

    name: str
    law: Callable[[Standing], list[tuple[float, Groups]]]
    reads_values: bool = False
    size: int | None = 2
    as_drawn: bool = False

    def select(self, standing: Standing, uniform: Callable[[], float]) -> Groups:
        """The groups to compare. ``uniform`` draws from [0, 1); called once, and only where there is a choice."""
        outcomes = self.law(standing)
        if len(outcomes) == 1:
            return outcomes[0][1]
        threshold, passed = uniform() * sum(chance for chance, _ in outcomes), 0.0
        for chance, groups in outcomes:
            passed += chance
            if threshold < passed:
                return groups
        return outcomes[-1][1]


def certain(choose: Callable[[Standing], Groups]) -> Callable[[Standing], list[tuple[float, Groups]]]:
    """The law of a rule that leaves nothing to chance."""
    return lambda standing: [(1.0, choose(standing))]


def win_rates(preference: Matrix) -> tuple[float | None, ...]:
    """Mean preference of each candidate over the others, itself left out; None where one of them is missing.

    Leaving out the comparison with itself matters: counting it pulls every rate toward 1/2.

    >>> win_rates(((0.5, 0.9, 0.7), (0.1, 0.5, None), (0.3, None, 0.5)))
    (0.8, None, None)
    """
    rates: list[float | None] = []
    for i, row in enumerate(preference):
        others = [value for j, value in enumerate(row) if j != i]
        given = [value for value in others if value is not None]
        # fsum: candidates that say the same tie exactly, in whatever order the others stand.
        rates.append(math.fsum(given) / len(given) if given and len(given) == len(others) else None)
    return tuple(rates)


def first_two(standing: Standing) -> Groups:
    """The first two candidates, whatever they scored: where both are drawn alike, an independent pair.

    >>> first_two(Standing(4))
    [(0, 1)]
    """
    return [(0, 1)] if standing.count >= 2 else []


def best_worst(standing: Standing) -> Groups:
    """The best candidate against the worst; candidates without a value are left out, ties give no pair.

    >>> best_worst(Standing(4, [0.1, None, 2.0, -1.0]))
    [(2, 3)]
    """
    ranked = _ranked(standing)
    if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
        return []
    return [(ranked[0][1], ranked[-1][1])]


def all_pairs(standing: Standing) -> Groups:
    """Every unordered pair of candidates.

    >>> all_pairs(Standing(3))
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(combinations(range(standing.count), 2))


def best(standing: Standing) -> Groups:
    """The best candidate alone, to be imitated: of several best the earliest, also where all are alike.

    A tie of all must count: leaving it out would take mass from what is drawn often, and the law of what is imitated
    would no longer be that of the best of n.

    >>> best(Standing(3, [0.1, 2.0, -1.0]))
    [(1,)]
    """
    ranked = _ranked(standing)
    return [(ranked[0][1],)] if ranked else []


def each(standing: Standing) -> Groups:
    """Every candidate that has a value, each by itself.

    >>> each(Standing(3, [0.1, None, 2.0]))
    [(0,), (2,)]
    """
    return [(index,) for _, index in sorted(_ranked(standing), key=lambda entry: entry[1])]


def rank_filter(weights: Callable[[int], list[float]]) -> Callable[[Standing], list[tuple[float, Groups]]]:
    """One candidate, drawn with a weight that its rank among the prompt's own has, the best first; a lone one is kept.

    Source: arXiv 2409.06957 (policy filtration): rewards are less reliable in the middle of their range.

    >>> rank_filter(best_random)(Standing(3, [0.1, 2.0, -1.0]))
    [(0.5, [(1,)]), (0.25, [(0,)]), (0.25, [(2,)])]
    """

    def law(standing: Standing) -> list[tuple[float, Groups]]:
        ranked = _ranked(standing)
        if len(ranked) < 2:
            return [(1.0, [(index,) for _, index in ranked])]
        pairs = zip(weights(len(ranked)), ranked, strict=True)
        return [(weight, [(index,)]) for weight, (_, index) in pairs if weight > 0]

    return law


def best_random(count: int) -> list[float]:
    """Half the weight on the best, the other half spread over the others."""
    return [0.5] + [0.5 / (count - 1)] * (count - 1)


def best_or_worst(count: int) -> list[float]:
    """Half the weight on the best, half on the worst."""
    return [0.5] + [0.0] * (count - 2) + [0.5]


def everyone(standing: Standing) -> Groups:
    """All candidates that have a value as one group, also where all are alike; fewer than two are nothing to compare.

    A tie of all must count: it says nothing of the reward, but a penalty on the distance to the reference acts on its
    completions too. Left out, rewards that often tie would leave the policy free of it.

    >>> everyone(Standing(4, [0.1, None, 2.0, -1.0]))
    [(0, 2, 3)]
    """
    ranked = _ranked(standing)
    if len(ranked) < 2:
        return []
    return [tuple(sorted(index for _, index in ranked))]


def clear_wins(threshold: float) -> Callable[[Standing], Groups]:
    """Every ordered pair whose first is preferred with at least the probability ``threshold``.

    Source: arXiv 2402.10038 (rejection-sampled DPO), its reward gap over temperature written as a preference.

    >>> clear_wins(0.8)(Standing(2, preference=((0.5, 0.1), (0.9, 0.5))))
    [(1, 0)]
    """

    def select(standing: Standing) -> Groups:
        if standing.preference is None:
            return []
        return [
            (i, j)
            for i, row in enumerate(standing.preference)
            for j, p in enumerate(row)
            if i != j and p is not None and p >= threshold
        ]

    return select


def tilted(standing: Standing) -> list[tuple[float, Groups]]:
    """One candidate drawn with weight ``exp(value)`` against one drawn with weight ``exp(-value)``, independently.

    Among K draws of the policy this resamples toward ``pi exp(r)`` and ``pi exp(-r)``, exactly so as K grows. The same
    candidate drawn twice is nothing to compare.

    Source: arXiv 2409.19605, the reward-tilted half of DPO-Mix-R.

    >>> [(round(chance, 3), groups) for chance, groups in tilted(Standing(2, [0.0, 1.0]))]
    [(0.197, []), (0.072, [(0, 1)]), (0.534, [(1, 0)]), (0.197, [])]
    """
    ranked = sorted(_ranked(standing), key=lambda entry: entry[1])
    if len(ranked) < 2:
        return [(1.0, [])]
    up, down = _softmax([value for value, _ in ranked]), _softmax([-value for value, _ in ranked])
    return [
        (up[a] * down[b], [] if a == b else [(ranked[a][1], ranked[b][1])])
        for a in range(len(ranked))
        for b in range(len(ranked))
    ]


def _ranked(standing: Standing) -> list[tuple[float, int]]:
    """``(value, index)`` from best to worst, the earlier candidate first among equals; missing values left out."""
    if standing.values is None:
        return []
    given = [(value, index) for index, value in enumerate(standing.values) if value is not None]
    return sorted(given, key=lambda entry: (-entry[0], entry[1]))


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]


RULES: Mapping[str, PairingRule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            PairingRule("first-two", certain(first_two)),
            PairingRule("best-worst", certain(best_worst), reads_values=True),
            PairingRule("all-pairs", certain(all_pairs)),
            PairingRule("best", certain(best), reads_values=True, size=1),
            PairingRule("all", certain(everyone), reads_values=True, size=None, as_drawn=True),
            PairingRule("each", certain(each), reads_values=True, size=1, as_drawn=True),
            PairingRule("rank-filter:best-random", rank_filter(best_random), reads_values=True, size=1, as_drawn=True),
            PairingRule("rank-filter:best-worst", rank_filter(best_or_worst), reads_values=True, size=1, as_drawn=True),
            PairingRule("tilted", tilted, reads_values=True),
        )
    }
)
CLEAR_WINS = "clear-wins"


def rule(name: str) -> PairingRule:
    """The rule called ``name``; ``clear-wins:0.8`` carries its threshold.

    Raises:
        SpecError: no such rule, or a threshold that is no probability above 1/2.

    >>> rule("clear-wins:0.8").reads_values
    True
    """
    head, _, parameter = name.partition(":")
    if head == CLEAR_WINS:
        return PairingRule(name, certain(clear_wins(_threshold(parameter))), reads_values=True)
    if name not in RULES:
        known = (*RULES, f"{CLEAR_WINS}:0.8")
        raise SpecError(f"there is no pairing rule {name!r}{nearest(name, known)}; the rules are {', '.join(known)}")
    return RULES[name]


def _threshold(text: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0.5 < threshold <= 1:
        raise SpecError(
            f"{CLEAR_WINS} needs the probability above 1/2 from which a win is clear, like {CLEAR_WINS}:0.8, got "
            f"{text!r}"
        )
    return threshold
