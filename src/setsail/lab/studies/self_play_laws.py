"""Closed-form rounds of self-play, thousands of them: exponential weights, INPO's threshold, DNO's guarantee.

The *uneven cycle* has win rates 0.9, 0.8 and 0.8 around three answers and the Nash policy (0.3, 0.3, 0.4); the *cycle*
is rock-paper-scissors with a uniform reference. Policies are log-probs, nats.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.studies.self_play_rounds import START, dno_by_law

ROUNDS = 4000
UNIFORM = (1 / 3, 1 / 3, 1 / 3)
NEAR = torch.tensor([0.34, 0.33, 0.33], dtype=torch.float64).log()
TAU, ETAS = 0.1, (0.40, 0.46, 0.48, 0.60)
PUBLISHED = (0.0025, 0.0075)
"""INPO's tau and eta."""


@cache
def exponential_weights() -> lab.Trajectory:
    """SPPO's exact step with eta 0.1, which is DNO's with eta 10, on the uneven cycle."""
    return lab.iterate(lab.sppo_exact, lab.uneven_cycle(), START, ROUNDS, 0.1)


@cache
def inpo_run(eta: float) -> lab.Trajectory:
    """INPO's exact step on the cycle at tau 0.1, from (0.34, 0.33, 0.33)."""
    return lab.iterate(lab.inpo_exact, lab.rock_paper_scissors(TAU, UNIFORM), NEAR, ROUNDS, eta)


def averages(run: lab.Trajectory) -> Tensor:
    """The mean of the iterates up to each one, log-probs ``(T + 1, n)``."""
    counts = torch.arange(1, len(run.log_probs) + 1, dtype=torch.float64)
    return (run.log_probs.exp().cumsum(0) / counts.unsqueeze(-1)).log()


def off_uniform(log_probs: Tensor) -> Tensor:
    """Largest distance of a probability from one third, shape ``(...)``."""
    return (log_probs.exp() - 1 / 3).abs().amax(-1)


def threshold(tau: float) -> float:
    """The eta at which INPO's local factor on the cycle is 1, by bisection."""
    game = lab.rock_paper_scissors(tau, UNIFORM)
    low, high = tau, 100.0
    for _ in range(50):
        middle = math.sqrt(low * high)
        stable = lab.local_factor(lab.inpo_exact, game, middle, at=game.reference) < 1
        low, high = (low, middle) if stable else (middle, high)
    return high


def random_policies(seed: int) -> Tensor:
    """Two policies over six answers, log-probs ``(2, 6)``."""
    return torch.from_numpy(stream(seed, "study", "self-play").normal(size=(2, 6))).log_softmax(-1)


def monotonicity() -> tuple[float, float]:
    """Over ten games and three etas: error of P = 1/2 + eta (KL + KL back), and the least win over the bound."""
    error, least = 0.0, math.inf
    for seed in range(10):
        game, before = lab.random_game(seed, 6, 0.0), random_policies(seed)[0]
        for eta in (0.05, 0.2, 1.0):
            after = lab.dno_exact(before, game, eta)
            won, there = game.payoff(after, before).item(), lab.exact_kl(after, before).item()
            back = lab.exact_kl(before, after).item()
            error = max(error, abs(won - 0.5 - eta * (there + back)))
            least = min(least, won - 0.5 - eta * there)
    return error, least


def dno_distance() -> float:
    """Largest total variation between DNO's minimum on arbitrary pairs and ``pi exp(P pi / eta) / Z``."""
    worst = 0.0
    for eta in (0.05, 0.2, 1.0):
        game, (before, drawn) = lab.random_game(0, 6, 0.0), random_policies(0)
        after, exact = dno_by_law(eta, before, game, drawn), lab.dno_exact(before, game, eta)
        worst = max(worst, (after.exp() - exact.exp()).abs().sum().item() / 2)
    return worst
