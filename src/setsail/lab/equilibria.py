"""Equilibria of preference games to the last digits, as the fixed points that learning is measured against.

Legend: ``n`` responses; policies are log-probs of shape ``(n,)``, nats, float64.
"""

from __future__ import annotations

import torch
from scipy.optimize import linprog
from torch import Tensor

from setsail.lab.games import PreferenceGame

_CONTINUATION = 4.0  # beta falls by this factor from 1 to the game's own
_SMALLEST = 1e-12  # below, log-probs off the support are so large that float64 has no digits for the rest
_ENOUGH = 1e-12  # residual in nats, or in win rates where beta is below 1
_HALVINGS = 30
_ITERATIONS = 200


@torch.no_grad()
def equilibrium(game: PreferenceGame, mixture: float = 0.0) -> Tensor:
    """The policy that is the best response to itself, or to its geometric mixture with the reference.

        pi = ref exp(P pi_m / beta) / Z,    pi_m = pi^(1 - m) ref^m / Z

    ``m = 0``: the quantal response equilibrium, which is the regularized Nash policy. ``m > 0``: the point where
    Nash-MD with the constant step ``m / beta``, and the Nash-MD policy gradient with mixing m, come to rest: another
    policy than the equilibrium. ``m = 1``: the best response to the reference.

    Newton's method on ``theta - log ref - A pi_m / beta``, halving steps that do not lower its norm. The Jacobian
    ``I - (1 - m) A S / beta``, with A = P - 1/2 antisymmetric and S a covariance, is never singular (the spectrum of
    ``A S`` is imaginary), so each such step exists and lowers the norm; beta falls gradually from 1, so that few are
    needed even at 1e-7. With beta 0 a linear program gives a Nash policy, one of them if there are several.

    Args:
        game: the game.
        mixture: m, the weight of the reference in the opponent, in [0, 1].

    Returns:
        Log-probs, shape ``(n,)``; probabilities are accurate to 1e-12, most often to 1e-15 (with beta 0, log-probs are
        -inf outside the support).

    Raises:
        ValueError: the mixture is outside [0, 1], or used with beta 0; beta lies between 0 and 1e-12.
        ArithmeticError: the fixed point was not found to a residual of 1e-12 nats (``1e-12 / beta`` where beta < 1).

    Source: arXiv 2312.00886, regularized Nash policy (tau there is beta); arXiv 2503.08942, its fixed-point form.

    >>> game = PreferenceGame(torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]), torch.zeros(3), 0.0)
    >>> [round(share, 6) for share in equilibrium(game).exp().tolist()]
    [0.3, 0.3, 0.4]
    """
    if not 0 <= mixture <= 1:
        raise ValueError(f"the reference's weight in a mixture lies in [0, 1], got {mixture}")
    if game.beta == 0:
        if mixture:
            raise ValueError("a mixture with the reference needs a penalty to it: beta > 0")
        return _nash(game)
    if game.beta < _SMALLEST:
        raise ValueError(f"beta {game.beta} is too small a penalty for float64; use {_SMALLEST:g} or more, or 0")
    beta, theta = max(1.0, game.beta), game.reference
    while True:
        theta = _newton(game, beta, mixture, theta)
        if beta <= game.beta:
            break
        beta = max(game.beta, beta / _CONTINUATION)
    policy = theta.log_softmax(-1)
    residual = game.residual(policy, mixture).item()
    # In log-probs the rounding of win rates is divided by beta.
    if not residual * min(1.0, game.beta) < _ENOUGH:
        raise ArithmeticError(
            f"Newton's method stopped at a residual of {residual:.1e} nats at beta {game.beta}; use a larger beta, or 0"
        )
    return policy


def _newton(game: PreferenceGame, beta: float, mixture: float, theta: Tensor) -> Tensor:
    """Solve at this beta, loosely on the way to a smaller one."""
    enough = 1e-3 if beta > game.beta else 2.0**-52
    identity = torch.eye(len(theta), dtype=torch.float64)
    # Win rates above one half: they vanish on the support as beta does, so that theta keeps its digits there.
    table = game.preference - 0.5

    def opponent(theta: Tensor) -> Tensor:
        return ((1 - mixture) * theta + mixture * game.reference).softmax(-1)

    def excess(theta: Tensor) -> Tensor:
        return beta * (theta - game.reference) - table @ opponent(theta)

    # Any constant may be added to theta; this one makes the excess small.
    theta = theta - excess(theta).mean() / beta
    found = excess(theta)
    for _ in range(_ITERATIONS):
        if found.norm() <= enough:
            break
        q = opponent(theta)
        covariance = torch.diag(q) - torch.outer(q, q)
        step = torch.linalg.solve(beta * identity - (1 - mixture) * table @ covariance, found)
        for halving in range(_HALVINGS):
            size = 0.5**halving
            moved = theta - size * step
            remaining = excess(moved)
            if remaining.norm() < (1 - 1e-4 * size) * found.norm():
                break
        else:
            break  # down to rounding
        theta, found = moved, remaining
    return theta


def _nash(game: PreferenceGame) -> Tensor:
    """Maximize v subject to ``P^T pi >= v`` over the simplex, then solve for equal win rates on the support found."""
    n = len(game.reference)
    columns = torch.cat([-game.preference.T, torch.ones(n, 1, dtype=torch.float64)], dim=1)
    solution = linprog(
        [0.0] * n + [-1.0],
        A_ub=columns.numpy(),
        b_ub=[0.0] * n,
        A_eq=[[1.0] * n + [0.0]],
        b_eq=[1.0],
        bounds=[(0.0, 1.0)] * (n + 1),
        method="highs",
    )
    share = torch.as_tensor(solution.x[:n], dtype=torch.float64).clamp(min=0.0)
    return _sharpened(game, share / share.sum()).log()


def _sharpened(game: PreferenceGame, share: Tensor) -> Tensor:
    """The solver satisfies its constraints to 1e-9 or so; on the support they are equations."""
    support = torch.nonzero(share > 1e-9).squeeze(-1)
    rows = torch.cat([game.preference[support][:, support] - 0.5, torch.ones(1, len(support), dtype=torch.float64)])
    right = torch.zeros(len(support) + 1, 1, dtype=torch.float64)
    right[-1] = 1.0
    sharper = torch.zeros_like(share)
    sharper[support] = torch.linalg.lstsq(rows, right).solution.squeeze(-1)
    better = (game.preference @ sharper).max() <= (game.preference @ share).max()
    return sharper if bool(better) and bool((sharper >= 0).all()) else share
