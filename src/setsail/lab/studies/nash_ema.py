"""Policy gradients against an opponent that is an average of the policy's past: when they turn in circles.

With the policy's rate r and the average's share e a step, both small, the distance from the equilibrium of the cycle
with a uniform reference obeys ``x' = (r/3) (i w m - beta x)``, ``m' = e (x - m)`` with w = 1/sqrt(12). It grows where
``(1 + u)^2 / u < w^2 / beta^2``, u = 3 e / (r beta): never for beta above w / 2 = 0.144.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from setsail import lab

UNIFORM = (1 / 3, 1 / 3, 1 / 3)
BETA, RATE = 0.1, 0.01
"""For the thresholds: a rate so small that steps follow the differential equation."""


def average_factor(game: lab.PreferenceGame, rate: float, share: float) -> float:
    """Spectral radius at the equilibrium of Nash-EMA: one gradient step of the policy, one move of its opponent."""
    target, n = lab.equilibrium(game), len(game.reference)

    def step(both: Tensor) -> Tensor:
        """Policy and opponent after it; a constant added to all logits, which is no other policy, is taken away."""
        payoff = game.payoff(both[:n], both[n:].log_softmax(-1))
        (slope,) = torch.autograd.grad(payoff, both, create_graph=True)
        moved = both[:n] + rate * slope[:n]
        followed = (1 - share) * both[n:] + share * moved
        return torch.cat([moved - moved.mean(), followed - followed.mean()])

    at = torch.cat([target, target]).requires_grad_()
    jacobian = torch.stack([torch.autograd.grad(entry, at, retain_graph=True)[0] for entry in step(at)])
    return float(torch.linalg.eigvals(jacobian).abs().max())


def unstable_shares() -> tuple[float, float]:
    """Between which u (see above) the exact steps leave the equilibrium of the uniform cycle at beta 0.1."""
    game = lab.rock_paper_scissors(BETA, UNIFORM)
    unit = RATE * BETA / 3

    def threshold(stable: float, unstable: float) -> float:
        for _ in range(25):
            middle = math.sqrt(stable * unstable)
            grows = average_factor(game, RATE, middle * unit) > 1
            stable, unstable = (stable, middle) if grows else (middle, unstable)
        return stable

    return threshold(0.01, 1.0), threshold(100.0, 1.0)


def derived_shares() -> tuple[float, float]:
    """The same from the differential equation: the roots of ``(1 + u)^2 = u w^2 / beta^2``."""
    half = 1 / 12 / BETA**2 / 2 - 1
    width = math.sqrt(half**2 - 1)
    return half - width, half + width
