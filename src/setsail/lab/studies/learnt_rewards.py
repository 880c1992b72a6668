"""The numbers behind the study of over-optimization: learnt rewards of forty worlds, and policies that optimize them.

Axis legend: ``worlds`` (the prompts of one tabular policy), ``responses``, ``models`` of an ensemble. KL in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.learnt_reward import Comparisons, compare_draws, fit_reward, rare_is_worse, tilted_to
from setsail.lab.reward_ensembles import mean_reward, variance_penalized, worst_case
from setsail.policies.tabular import EnumerablePolicy

WORLDS, COMPARED, MODELS, PENALTY, ETA = 40, 200, 5, 0.5, 0.1
RIDGE, RIGHT_RIDGE = 0.02, 1.0
KLS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
LAST = KLS[-1]
T95 = {20: 2.093, 40: 2.0227}
"""Student's t for 95 % two-sided, by number of worlds."""

ONE, MEAN, WORST, VARIANCE = "one model", "mean of 5", "worst of 5", "mean - Var / 2"
PRIOR, GOLD = "one model, right prior", "gold"
ENSEMBLES = (MEAN, WORST, VARIANCE)


@dataclass(frozen=True, slots=True)
class Worlds:
    """What all rows share: reference, gold reward and comparisons of every world."""

    reference: EnumerablePolicy
    gold: Tensor
    data: Comparisons


@cache
def setting() -> Worlds:
    """The worlds, the same ones for every row of every table."""
    numbers = stream(0, "study", "over-optimization", "worlds")
    reference, gold = rare_is_worse(numbers, prompts=WORLDS)
    uniforms = torch.from_numpy(numbers.random((WORLDS, COMPARED, 3)))
    return Worlds(reference.frozen(), gold, compare_draws(reference, gold, uniforms))


@cache
def learnt_by(name: str) -> Tensor:
    """A reward of every response, shape ``(worlds, responses)``: fitted once, or to resampled comparisons.

    The right prior is the one that gold rewards are drawn from, N(0, 1).
    """
    data = setting().data
    if name in (ONE, PRIOR):
        return fit_reward(data.wins(), ridge=RIDGE if name == ONE else RIGHT_RIDGE)
    numbers = stream(0, "study", "over-optimization", "ensemble")
    models = torch.stack([fit_reward(data.resampled(numbers).wins(), ridge=RIDGE) for _ in range(MODELS)])
    return {MEAN: mean_reward(models), WORST: worst_case(models), VARIANCE: variance_penalized(models, PENALTY)}[name]


def expected(policy: EnumerablePolicy, reward: Tensor) -> Tensor:
    """Expected reward of every world, shape ``(worlds,)``."""
    return (policy.log_probs().detach().exp() * reward).sum(-1)


def _kl(policy: EnumerablePolicy) -> Tensor:
    table, frozen = policy.log_probs().detach(), setting().reference.log_probs()
    return (table.exp() * (table - frozen)).sum(-1)


@cache
def gold_gains(name: str) -> dict[float, Tensor]:
    """Gold reward gained over the reference at each KL, a number a world."""
    reward = setting().gold if name == GOLD else learnt_by(name)
    return {kl: gold_gain(tilted_to(setting().reference, reward, kl)) for kl in KLS}


def gold_gain(policy: EnumerablePolicy) -> Tensor:
    """Gold reward gained over the reference, shape ``(worlds,)``."""
    given = setting()
    return expected(policy, given.gold) - expected(given.reference, given.gold)


BETAS = tuple(0.1 * math.exp(0.4 * place) for place in reversed(range(12)))


@cache
def pessimistic_path() -> tuple[Tensor, Tensor]:
    """KL and gold gain of the pessimistic policy of every beta, shapes ``(betas, worlds)``."""
    given = setting()
    wins, base = given.data.wins(), given.data.chosen()
    kls, gains = [], []
    for beta in BETAS:
        reward = fit_reward(
            wins, ridge=RIDGE, pessimism=ETA * COMPARED, reference=given.reference, base=base, beta=beta
        )
        policy = lab.optimal_policy(given.reference, reward, beta)
        kls.append(_kl(policy))
        gains.append(gold_gain(policy))
    return torch.stack(kls), torch.stack(gains)


def gain_at_its_kl(name: str, place: int) -> Tensor:
    """Gold gain of another reward at the KL that each world's pessimistic policy has, for the beta at ``place``."""
    return gold_gain(tilted_to(setting().reference, learnt_by(name), pessimistic_path()[0][place]))


def standard_error(values: Tensor) -> float:
    """Standard error of the mean over worlds."""
    return values.std().item() / math.sqrt(len(values))


def lower_bound(values: Tensor) -> float:
    """Lower end of the 95 % interval of the mean."""
    return values.mean().item() - T95[len(values)] * standard_error(values)


def best_kl(name: str, worlds: slice = slice(None)) -> float:
    """The KL at which the mean gold reward is largest."""
    found = gold_gains(name)
    return max(found, key=lambda kl: float(found[kl][worlds].mean()))


def lucky_mass(kl: float) -> Tensor:
    """Mass that the policy of one model has on responses that won all of their one to three comparisons."""
    given, wins = setting(), setting().data.wins()
    won, lost = wins.sum(-1), wins.sum(-2)
    policy = tilted_to(given.reference, learnt_by(ONE), kl)
    return expected(policy, ((won > 0) & (won <= 3) & (lost == 0)).to(torch.float64))


# Best of n.

DRAWS = 512
COUNTS = tuple(2**power for power in range(9))


@cache
def best_of_n_gains(name: str, n: int) -> tuple[Tensor, Tensor]:
    """KL and gold gain of best of n by a learnt reward, a number a world."""
    policy = lab.best_of_n_policy(setting().reference, learnt_by(name), n)
    return _kl(policy), gold_gain(policy)


@cache
def best_of_n_estimates(name: str, n: int) -> Tensor:
    """The same gain, estimated from 512 draws of each world's reference."""
    given, reward = setting(), learnt_by(name)
    drawn = given.reference.sample(torch.arange(WORLDS), _uniforms())
    found = lab.best_of_n_estimate(reward.gather(1, drawn), given.gold.gather(1, drawn), n)
    return found - expected(given.reference, given.gold)


@cache
def tilted_as_far(name: str, n: int) -> Tensor:
    """Gold gain of ``pi_ref exp(r / beta)`` at the KL that best of n has in each world."""
    return gold_gain(tilted_to(setting().reference, learnt_by(name), best_of_n_gains(name, n)[0]))


@cache
def _uniforms() -> Tensor:
    return torch.from_numpy(stream(0, "study", "over-optimization", "draws").random((WORLDS, DRAWS)))
