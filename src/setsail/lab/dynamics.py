"""Exact update rules of preference games: what self-play methods would do with exact win rates and a perfect fit.

Each rule is ``rule(policy, game, step) -> policy``, on log-probs ``(..., n)`` in nats. All are one multiplicative step

    log pi+ = (1 - s beta) log pi + s beta log ref + s P pi_opp   (up to a constant)

and differ in the opponent ``pi_opp``, in whether the reference pulls, and in whether the paper's parameter is the
step s or its inverse. Legend: ``n`` responses, ``steps`` T; beta is a win rate a nat, s a nat a win rate.

    >>> from setsail.lab.named_games import rock_paper_scissors
    >>> run = iterate(extragradient, rock_paper_scissors(beta=0.1), torch.zeros(3), steps=400, step=0.3)
    >>> [round(share, 6) for share in run.last.exp().tolist()]
    [0.432065, 0.230329, 0.337605]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.lab.equilibria import equilibrium
from setsail.lab.games import PreferenceGame, exact_kl
from setsail.objectives.records import check_positive

Rule = Callable[[Tensor, PreferenceGame, float], Tensor]
"""``rule(policy, game, step) -> policy``: log-probs to log-probs."""


def mirror_descent(policy: Tensor, game: PreferenceGame, step: float) -> Tensor:
    """Regularized self-play: ``pi+ = pi^(1 - s beta) ref^(s beta) exp(s P pi) / Z``.

    Its fixed point is the equilibrium, and its last iterate converges to it only if the step is small enough for
    the cycles in P (see :func:`local_factor`). A gradient step of size kappa on the population loss of online IPO,
    with both responses uniform and the opponent drawn from pi, is this step with ``s beta = 4 kappa / n``; the
    population minimum of INPO is this step with ``s = 1 / eta``.

    Args:
        policy: log-probs, shape ``(..., n)``.
        step: s, > 0, with ``s beta <= 1``: the weight of the reference.

    Returns:
        Log-probs, the same shape.

    Raises:
        ValueError: the step is not positive, or ``s beta > 1``.

    Source: arXiv 2312.00886 (self-play, mixing 0); arXiv 2503.08942 (online IPO as mirror descent).
    """
    _check_step(step, game)
    return _step(policy, game, step, opponent=policy)


def nash_md(policy: Tensor, game: PreferenceGame, step: float) -> Tensor:
    """Nash-MD: mix, then respond to the mixture.

        pi_m = pi^(1 - s beta) ref^(s beta) / Z,    pi+ = pi_m exp(s P pi_m) / Z

    ``KL(pi*, pi+) <= (1 - s beta) KL(pi*, pi) + 2 s^2``. With a constant step it comes to rest away from the
    equilibrium, at ``equilibrium(game, mixture=s beta)``; it needs :func:`harmonic_steps`.

    Raises:
        ValueError: the step is not positive, or ``s beta > 1``.

    Source: arXiv 2312.00886, Nash-MD (tau is beta, eta the step).
    """
    _check_step(step, game)
    return _step(policy, game, step, opponent=game.mixed(policy, step * game.beta))


def extragradient(policy: Tensor, game: PreferenceGame, step: float) -> Tensor:
    """EGPO: look half a step ahead, go back, and take the step against the policy that was seen there.

        pi' = step of pi against pi,    pi+ = step of *pi* against pi'

    Both are the step of :func:`mirror_descent` and start from the same pi. For ``s <= 1 / (beta + 3)`` the last
    iterate satisfies ``KL(pi*, pi_t) <= (1 - s beta)^t KL(pi*, pi_0)`` in every game.

    Raises:
        ValueError: the step is not positive, or ``s beta > 1``.

    Source: arXiv 2503.08942 (eta is the step).
    """
    _check_step(step, game)
    return _step(policy, game, step, opponent=_step(policy, game, step, opponent=policy))


def sppo_exact(policy: Tensor, game: PreferenceGame, step: float) -> Tensor:
    """Exponential weights without a reference: ``pi+ = pi exp(s P pi) / Z``; the game's beta plays no part.

    On a cyclic game the last iterate spirals outward, while the average iterate approaches a Nash policy of the
    unregularized game like ``1 / sqrt(T)``. The published regression replaces ``log Z`` by ``s / 2``, which is this
    step only for small s.

    Raises:
        ValueError: the step is not positive.

    Source: arXiv 2405.00675 (eta is the step).
    """
    check_positive("step", step)
    return _step(policy, game, step, opponent=policy, beta=0.0)


def inpo_exact(policy: Tensor, game: PreferenceGame, step: float) -> Tensor:
    """The population minimum of INPO's loss: ``pi+ = ref^(tau / eta) pi^(1 - tau / eta) exp(P pi / eta) / Z``.

    This is :func:`mirror_descent` with the step ``1 / eta``, beta the paper's tau.

    Args:
        policy: log-probs, shape ``(..., n)``: also where the pairs of the loss are drawn from.
        step: the paper's *eta*, at least beta: a large eta is a small step.

    Raises:
        ValueError: eta is not positive, or smaller than beta.

    Source: arXiv 2407.00617.
    """
    check_positive("step", step)
    return mirror_descent(policy, game, 1 / step)


def dno_exact(policy: Tensor, game: PreferenceGame, step: float) -> Tensor:
    """The target of a round of direct Nash optimization: ``pi+ = pi exp(P pi / eta) / Z``; no reference.

    ``P(pi+ > pi) = 1/2 + eta (KL(pi+ || pi) + KL(pi || pi+))``: a round never loses to the policy before it.

    Args:
        policy: log-probs, shape ``(..., n)``.
        step: the paper's *eta*, > 0, which multiplies log-ratios: a large eta is a small step.

    Raises:
        ValueError: eta is not positive.

    Source: arXiv 2404.03715.
    """
    check_positive("step", step)
    return sppo_exact(policy, game, 1 / step)


def _check_step(step: float, game: PreferenceGame) -> None:
    check_positive("step", step)
    # A relative 1e-12 for steps that are written as 1 / beta.
    if step * game.beta > 1 + 1e-12:
        raise ValueError(
            f"step * beta is the weight of the reference and must not exceed 1, got {step} * {game.beta}; "
            f"use a step of at most {1 / game.beta:g}"
        )


def _step(policy: Tensor, game: PreferenceGame, step: float, opponent: Tensor, beta: float | None = None) -> Tensor:
    pull = min(1.0, step * (game.beta if beta is None else beta))
    policy = policy.to(torch.float64)
    return ((1 - pull) * policy + pull * game.reference + step * game.win_rates(opponent)).log_softmax(-1)


def harmonic_steps(game: PreferenceGame) -> Callable[[int], float]:
    """The schedule ``s_t = 2 / (beta (t + 2))``, t = 0, 1, ..., under which Nash-MD converges.

    The bound is ``KL(pi*, pi_T) <= 8 / (beta^2 (T + 1))``; actual distances are orders of magnitude smaller, so the
    bound alone proves little about an implementation. The first step has weight 1 on the reference: the start is
    forgotten.

    Raises:
        ValueError: beta is 0.

    Source: arXiv 2312.00886, convergence of Nash-MD.

    >>> from setsail.lab.named_games import rock_paper_scissors
    >>> schedule = harmonic_steps(rock_paper_scissors(beta=0.1))
    >>> schedule(0), schedule(18)
    (10.0, 1.0)
    """
    check_positive("beta", game.beta)
    return lambda t: 2 / (game.beta * (t + 2))


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """A run of one rule, the start included.

    Attributes:
        log_probs: the iterates, shape ``(T + 1, n)``, nats.
        gap: duality gap of each, shape ``(T + 1,)``.
        kl: ``KL(target || pi_t)`` of each, nats, shape ``(T + 1,)``.
    """

    log_probs: Tensor
    gap: Tensor
    kl: Tensor

    @property
    def last(self) -> Tensor:
        """The last iterate, log-probs ``(n,)``."""
        return self.log_probs[-1]

    @property
    def average(self) -> Tensor:
        """The uniform mixture of all iterates, the start included, log-probs ``(n,)``: the mean of *probabilities*."""
        return self.log_probs.exp().mean(0).log()


@torch.no_grad()
def iterate(
    rule: Rule,
    game: PreferenceGame,
    start: Tensor,
    steps: int,
    step: float | Callable[[int], float],
    target: Tensor | None = None,
) -> Trajectory:
    """Apply a rule again and again, and measure every iterate.

    Args:
        rule: one of this module, or any function of the same form.
        start: log-probs (or logits) of the first policy, shape ``(n,)``.
        steps: T, how often.
        step: the rule's parameter, constant or a function of t = 0, 1, ..., T - 1.
        target: log-probs to measure the KL from; None = the game's equilibrium. The rules without a reference
            (:func:`sppo_exact`, :func:`dno_exact`) head for a Nash policy of the game with beta 0: give them that game.

    Raises:
        ValueError: a negative number of steps; what the rule raises.
    """
    if steps < 0:
        raise ValueError(f"the number of steps must not be negative, got {steps}")
    policy = start.detach().to(torch.float64).log_softmax(-1)
    visited = [policy]
    for t in range(steps):
        policy = rule(policy, game, step(t) if callable(step) else step)
        visited.append(policy)
    log_probs = torch.stack(visited)
    target = equilibrium(game) if target is None else target.to(torch.float64)
    return Trajectory(log_probs, game.duality_gap(log_probs), exact_kl(target, log_probs))


def local_factor(rule: Rule, game: PreferenceGame, step: float, at: Tensor | None = None) -> float:
    """Spectral radius of a rule's Jacobian at its fixed point: what a small distance is multiplied by, each step.

    Below 1 the last iterate converges linearly, and KL and gap shrink by its *square*; above 1 it moves away. For
    mirror descent on rock-paper-scissors with a uniform reference it is ``sqrt((1 - s beta)^2 + s^2 / 12)``, so that
    the last iterate converges if and only if ``1 / s > (beta^2 + 1/12) / (2 beta)``.

    Args:
        rule: the update rule.
        step: its parameter.
        at: the fixed point, log-probs ``(n,)``; None = the game's equilibrium (Nash-MD's is
            ``equilibrium(game, mixture=step * beta)``).

    >>> from setsail.lab.named_games import rock_paper_scissors
    >>> round(local_factor(mirror_descent, rock_paper_scissors(0.1, (1 / 3, 1 / 3, 1 / 3)), step=1.0), 6)
    0.945163
    """
    at = (equilibrium(game) if at is None else at.to(torch.float64)).clone().requires_grad_()
    moved = rule(at, game, step)
    jacobian = torch.stack([torch.autograd.grad(entry, at, retain_graph=True)[0] for entry in moved])
    return float(torch.linalg.eigvals(jacobian).abs().max())
