"""Expected losses written out by hand: loops over candidates in plain numbers, labels from the table of preferences.

Nothing here uses routes, pairing rules or objectives: a second way to the same number. Legend: ``x`` a prompt, ``y`` a
response, both indices; a *law* is the list of the probabilities of all responses to a prompt; ``lp`` is the row of the
policy's log-probs at a prompt, in nats, the one thing that is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from setsail.lab import TabularWorld
from setsail.policies.tabular import EnumerablePolicy, TabularTokenPolicy

Law = list[float]
Loss = Callable[[Law], float]
Term = tuple[float, int, Loss]
"""How likely a comparison is, its prompt, and its loss as a function of the policy's log-probs there."""


@dataclass(frozen=True)
class Numbers:
    """A world, as lists. ``sampler`` is the policy that answers, ``data`` holds (weight, x, y1, y2, p)."""

    sequences: list[tuple[int, ...]]
    sampler: list[Law]
    reference: list[Law]
    opponent: list[Law]
    reward: list[list[float]] | None
    preference: list[list[list[float]]]
    data: list[tuple[float, int, int, int, float]]

    @property
    def prompts(self) -> range:
        return range(len(self.sampler))

    @property
    def responses(self) -> range:
        return range(len(self.sequences))

    def h(self, x: int, y: int, lp: Law) -> float:
        """The log-ratio of a response to the reference, nats."""
        return lp[y] - math.log(self.reference[x][y])

    def margin(self, x: int, first: int, second: int, lp: Law) -> float:
        return self.h(x, first, lp) - self.h(x, second, lp)


def numbers(sampler: EnumerablePolicy, world: TabularWorld) -> Numbers:
    def laws(policy: EnumerablePolicy) -> list[Law]:
        return policy.log_probs().detach().exp().tolist()

    data, first = world.data, sampler.log_probs().shape[1]
    assert data.p is not None
    assert world.opponent is not None
    sequences = list(sampler.sequences()) if isinstance(sampler, TabularTokenPolicy) else [(y,) for y in range(first)]
    columns = (data.weight, data.prompt, data.first, data.second, data.p)
    return Numbers(
        sequences=sequences,
        sampler=laws(sampler),
        reference=laws(world.reference),
        opponent=laws(world.opponent),
        reward=None if world.reward is None else world.reward.tolist(),
        preference=world.preference.tolist(),
        data=list(zip(*(column.tolist() for column in columns), strict=True)),
    )


def total(terms: list[Term], log_probs: Tensor) -> float:
    rows = log_probs.detach().tolist()
    return math.fsum(chance * loss(rows[x]) for chance, x, loss in terms)


# Who answers.


def drawn(world: Numbers, *laws: list[Law]) -> Iterator[tuple[float, int, tuple[int, ...]]]:
    """One response of each law, independently, to a prompt drawn uniformly: chance, prompt, responses."""
    for x in world.prompts:
        for answers in product(world.responses, repeat=len(laws)):
            chance = math.prod(law[x][y] for law, y in zip(laws, answers, strict=True))
            yield chance / len(world.prompts), x, answers


def next_token(world: Numbers, law: Law, prefix: tuple[int, ...]) -> dict[int, float]:
    """The law of the token after a prefix, from the law of whole responses."""
    here = len(prefix)
    mass: dict[int, float] = {}
    for sequence, chance in zip(world.sequences, law, strict=True):
        if sequence[:here] == prefix and len(sequence) > here:
            mass[sequence[here]] = mass.get(sequence[here], 0.0) + chance
    return _normalized(mass)


def token_by_token(world: Numbers, law: Callable[[tuple[int, ...]], dict[int, float]]) -> Law:
    """The law of whole responses whose every token is drawn from ``law(prefix)``."""
    return [math.prod(law(each[:t])[each[t]] for t in range(len(each))) for each in world.sequences]


def mixed(world: Numbers, share: float) -> list[Law]:
    """Every token from ``policy^(1 - share) reference^share``, renormalized."""

    def law(x: int, prefix: tuple[int, ...]) -> dict[int, float]:
        own, other = (next_token(world, each[x], prefix) for each in (world.sampler, world.reference))
        return _normalized({token: own[token] ** (1 - share) * other[token] ** share for token in own})

    return [token_by_token(world, lambda prefix, x=x: law(x, prefix)) for x in world.prompts]


def tempered(world: Numbers, temperature: float) -> list[Law]:
    """Every token from ``policy^(1 / temperature)``, renormalized."""

    def law(x: int, prefix: tuple[int, ...]) -> dict[int, float]:
        own = next_token(world, world.sampler[x], prefix)
        return _normalized({token: chance ** (1 / temperature) for token, chance in own.items()})

    return [token_by_token(world, lambda prefix, x=x: law(x, prefix)) for x in world.prompts]


def greedy(world: Numbers, x: int) -> int:
    """The response of the reference's likeliest token after likeliest token."""
    prefix: tuple[int, ...] = ()
    while prefix not in world.sequences:
        chances = next_token(world, world.reference[x], prefix)
        prefix = (*prefix, max(chances, key=lambda token: chances[token]))
    return world.sequences.index(prefix)


def _normalized(mass: dict[int, float]) -> dict[int, float]:
    whole = sum(mass.values())
    return {token: chance / whole for token, chance in mass.items()}


# Who is better.


def win_rates(world: Numbers, x: int, answers: tuple[int, ...]) -> list[float]:
    """How often each of the answers is preferred to the others, on average."""
    table, n = world.preference[x], range(len(answers))
    return [math.fsum(table[answers[i]][answers[j]] for j in n if j != i) / (len(answers) - 1) for i in n]


def ranking(world: Numbers, x: int, answers: tuple[int, ...]) -> list[float]:
    """Scores where the labeler gives any, win rates otherwise."""
    return win_rates(world, x, answers) if world.reward is None else [world.reward[x][y] for y in answers]


def best_and_worst(world: Numbers, x: int, answers: tuple[int, ...]) -> tuple[int, int] | None:
    """Places of the first best and the last worst answer; None where all are alike."""
    values = ranking(world, x, answers)
    if max(values) == min(values):
        return None
    return values.index(max(values)), len(values) - 1 - values[::-1].index(min(values))


def decided(world: Numbers, x: int, first: int, second: int) -> float:
    """The likelier side wins for certain."""
    p = world.preference[x][first][second]
    return 0.5 if p == 0.5 else float(p > 0.5)


# What is minimized.


def logistic(world: Numbers, x: int, first: int, second: int, p: float, beta: float) -> Loss:
    """``-p log sigmoid(beta d) - (1 - p) log sigmoid(-beta d)``."""

    def loss(lp: Law) -> float:
        u = beta * world.margin(x, first, second, lp)
        return p * math.log1p(math.exp(-u)) + (1 - p) * math.log1p(math.exp(u))

    return loss


def squared(world: Numbers, x: int, first: int, second: int, p: float, beta: float) -> Loss:
    """``p (d - 1/(2 beta))^2 + (1 - p) (d + 1/(2 beta))^2``."""

    def loss(lp: Law) -> float:
        d, wanted = world.margin(x, first, second, lp), 1 / (2 * beta)
        return p * (d - wanted) ** 2 + (1 - p) * (d + wanted) ** 2

    return loss


def hinge(world: Numbers, x: int, first: int, second: int, p: float, beta: float) -> Loss:
    """``p max(0, 1 - beta d) + (1 - p) max(0, 1 + beta d)``."""

    def loss(lp: Law) -> float:
        u = beta * world.margin(x, first, second, lp)
        return p * max(0.0, 1 - u) + (1 - p) * max(0.0, 1 + u)

    return loss


def imitation(world: Numbers, y: int) -> Loss:
    """``-log pi(y)`` a token."""
    return lambda lp: -lp[y] / len(world.sequences[y])


def token_kl(world: Numbers, x: int, y: int) -> Loss:
    """The mean over the tokens of y of ``KL(reference || policy)`` of the token after each prefix."""
    prefixes = [world.sequences[y][:t] for t in range(len(world.sequences[y]))]
    frozen = [next_token(world, world.reference[x], prefix) for prefix in prefixes]

    def loss(lp: Law) -> float:
        law, kl = [math.exp(each) for each in lp], 0.0
        for prefix, chances in zip(prefixes, frozen, strict=True):
            moving = next_token(world, law, prefix)
            kl += sum(chance * math.log(chance / moving[token]) for token, chance in chances.items())
        return kl / len(prefixes)

    return loss


def payoff(world: Numbers, x: int, opponent: Law, beta: float) -> Loss:
    """Minus ``P(policy > opponent) - 1/2 - beta KL(policy || reference)``, the policy summed over, not sampled."""
    rates = [sum(chance * p for chance, p in zip(opponent, row, strict=True)) for row in world.preference[x]]

    def loss(lp: Law) -> float:
        return -sum(math.exp(lp[y]) * (rates[y] - 0.5 - beta * world.h(x, y, lp)) for y in world.responses)

    return loss
