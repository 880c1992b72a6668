"""The runs that the study ``egpo`` reads: rules on games, what a step costs, and whole methods of the catalogue.

Every rule takes the same step ``(1 - s beta) log pi + s beta log ref + s P pi_opp`` and differs in the opponent alone:
the policy itself (online IPO, which is mirror descent), the mixture with the reference (Nash-MD), or the policy half a
step ahead (EGPO, at the price of two gradients a step). Policies are log-probs ``(n,)``, nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies.game_runs import drawn_from, frozen_policy, game_world, iterates
from setsail.lab.studies.records import Cell
from setsail.methods import Method, Source, get
from setsail.policies.tabular import TabularPolicy
from setsail.reference import fixed

EGPO, ONLINE_IPO, NASH_MD, DECREASING = "EGPO", "online IPO", "Nash-MD", "Nash-MD, decreasing steps"
RULES: dict[str, lab.Rule] = {
    EGPO: lab.extragradient,
    ONLINE_IPO: lab.mirror_descent,
    NASH_MD: lab.nash_md,
    DECREASING: lab.nash_md,
}
GAMES, RESPONSES = 10, 10
KAPPAS = {0.1: 0.1, 0.01: 0.02}
"""Gradient step of the released simulation by beta; with n responses it is the step ``s = 4 kappa / (n beta)``."""
STEPS = {0.1: 1000, 0.01: 5000}
WIDE_STEP = 2.5


def steps_of(beta: float) -> float:
    """The released simulation's step s."""
    return 4 * KAPPAS[beta] / (RESPONSES * beta)


@dataclass(frozen=True, slots=True)
class Run:
    """One rule on one game: its iterates, where it would rest, and what the Jacobian there promises."""

    trajectory: lab.Trajectory
    rest: Tensor
    factor: float | None

    @property
    def measured(self) -> Cell:
        """What the distance to the resting point is multiplied by, each step, in the second half of the run."""
        distance = lab.exact_kl(self.rest, self.trajectory.log_probs)
        used = int((distance > 1e-22).sum())
        rate = lab.fit_rate(distance[used // 2 : used], floor=1e-22)
        return math.exp(rate.slope / 2) if rate.kind == "linear" else rate.kind


def run(name: str, game: lab.PreferenceGame, step: float, steps: int) -> Run:
    """Follow a rule from the reference."""
    schedule = lab.harmonic_steps(game) if name == DECREASING else step
    rest = lab.equilibrium(game, mixture=step * game.beta if name == NASH_MD else 0.0)
    factor = None if name == DECREASING else lab.local_factor(RULES[name], game, step, at=rest)
    return Run(lab.iterate(RULES[name], game, game.reference, steps, schedule), rest, factor)


@cache
def cycle_run(beta: float, step: float, name: str) -> Run:
    """On rock-paper-scissors with reference logits (0.5, 0, -0.5)."""
    return run(name, lab.tilted_rock_paper_scissors(beta), step, 3000 if beta == 0.01 else 1000)


@cache
def random_run(beta: float, name: str, seed: int, step: float) -> Run:
    """On a random game of ten responses."""
    steps = STEPS[beta] if name == ONLINE_IPO else 1000
    return run(name, lab.random_game(seed, RESPONSES, beta), step, steps)


def bias(game: lab.PreferenceGame, weight: float) -> float:
    """KL from the equilibrium to where Nash-MD comes to rest with this weight of the reference, nats."""
    return lab.exact_kl(lab.equilibrium(game), lab.equilibrium(game, mixture=weight)).item()


# What a step costs and how far it may go.

UNIFORM = (1 / 3, 1 / 3, 1 / 3)
COSTS = {EGPO: 2, ONLINE_IPO: 1}


@cache
def evaluations(beta: float, name: str) -> tuple[tuple[float, float | None], ...]:
    """For steps s from 0.01 to 4: gradients that divide the gap by ten near the equilibrium; None where it grows."""
    game = lab.rock_paper_scissors(beta, UNIFORM)
    found = []
    for index in range(81):
        step = 0.01 * 400 ** (index / 80)
        factor = lab.local_factor(RULES[name], game, step, at=game.reference)
        found.append((step, COSTS[name] * math.log(10) / (-2 * math.log(factor)) if factor < 1 - 1e-9 else None))
    return tuple(found)


def largest_step(beta: float, name: str) -> float:
    """Where the factor on rock-paper-scissors with a uniform reference reaches 1, by bisection."""
    game = lab.rock_paper_scissors(beta, UNIFORM)
    low, high = 1e-3, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        stable = lab.local_factor(RULES[name], game, middle, at=game.reference) < 1
        low, high = (middle, high) if stable else (low, middle)
    return low


def best_step(beta: float, name: str) -> tuple[float, float]:
    """The step that needs the fewest gradients, and how many those are."""
    return min(
        ((step, count) for step, count in evaluations(beta, name) if count is not None), key=lambda each: each[1]
    )


# Whole methods.

UNIFORM_PAIR, OWN_PAIR = Source(origin="opponent", count=2), Source(origin="policy", count=2)
ANSWER = Source(origin="policy")


def uniform_egpo() -> Method:
    """The catalogue's method with y1 and y2 uniform: an opponent that never moves, and is uniform, draws them."""
    return drawn_from(get("egpo").with_parts(opponent=fixed()), UNIFORM_PAIR, ANSWER)


def two_answers(update: str) -> Method:
    """Online IPO of the catalogue: two answers of the policy, each the other's yardstick."""
    return get("online-ipo").configured(parameters={"length_normalize": False}).with_parts(update=update)


METHODS: dict[str, tuple[Callable[[], Method], int]] = {
    "egpo, y1 and y2 uniform": (uniform_egpo, 3),
    "egpo as shipped: y1 and y2 at temperature 2, top-k 10": (lambda: get("egpo"), 3),
    "egpo, y1 and y2 from the policy": (lambda: drawn_from(get("egpo"), OWN_PAIR, ANSWER), 3),
    "online-ipo, extragradient": (lambda: two_answers("extragradient"), 2),
    "egpo, y1 and y2 uniform, plain steps": (lambda: uniform_egpo().with_parts(update="plain"), 3),
    "online-ipo": (lambda: two_answers("plain"), 2),
}
SHIPPED_STEPS = 150


def trained(method: Method, game: lab.PreferenceGame, step: float, steps: int) -> Tensor:
    """Iterates of a method whose uniform pairs give the step s, shape ``(steps + 1, n)``."""
    n, each = len(game.reference), 2 if method.update == "extragradient" else 1
    world = game_world(game, opponent=torch.zeros(n))
    method = method.configured(parameters={"beta": game.beta})
    rate = step * game.beta * n / 4
    return iterates(method, world, game.reference, steps=each * steps, rate=rate, every=each)


@cache
def method_path(name: str) -> Tensor:
    """The method on the tilted cycle at beta 0.01, s = 1."""
    return trained(METHODS[name][0](), lab.tilted_rock_paper_scissors(0.01), 1.0, SHIPPED_STEPS)


def gradient_error() -> float:
    """How far the expected gradient of the uniform method is from ``4/n (e - mean e)``, e = h - P pi / beta."""
    game = lab.random_game(3, responses=6, beta=0.3)
    policy = TabularPolicy(torch.linspace(-1, 1, 6, dtype=torch.float64)[None])
    world = game_world(game, opponent=torch.zeros(6))
    method = uniform_egpo().configured(parameters={"beta": game.beta})
    found = lab.mixture_gradient(method, policy, world)
    table = frozen_policy(policy.log_probs()[0]).log_probs()[0]
    e = table - game.reference - game.win_rates(table) / game.beta
    return (found - 4 / 6 * (e - e.mean())).abs().max().item()


def bound_violations() -> int:
    """Iterates above ``(1 - s beta)^t KL(pi* || pi_0)``, s = 1 / (beta + 3): 40 random games, three betas, 60 steps."""
    count = 0
    for beta in (1.0, 0.1, 0.01):
        step = 1 / (beta + 3)
        bound = (1 - step * beta) ** torch.arange(61, dtype=torch.float64)
        for seed in range(40):
            game = lab.random_game(seed, RESPONSES, beta)
            kl = lab.iterate(lab.extragradient, game, game.reference, 60, step).kl
            count += int((kl > bound * kl[0] * (1 + 1e-9) + 1e-22).sum())
    return count
