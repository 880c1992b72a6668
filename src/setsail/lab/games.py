"""Preference games: a table of win rates that need not come from any reward, and a KL penalty to a reference.

Legend: ``n`` responses to one prompt; ``...`` any leading axes, for example the iterates of a run. A policy is a tensor
of log-probs ``(..., n)`` in nats; logits do as well, because every function normalizes. All values are float64.

    >>> import torch
    >>> game = PreferenceGame(torch.tensor([[0.5, 0.9], [0.1, 0.5]]), torch.zeros(2), beta=0.5)
    >>> [round(share, 4) for share in game.best_response(game.reference).exp().tolist()]
    [0.69, 0.31]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 1e-6  # what a table of win rates may miss P + P^T = 1 by: the rounding of float32 and of files


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceGame:
    """Two players each choose a policy over n responses; the payoff is how often the first one's response wins.

        V(pi, pi') = pi^T P pi' - beta KL(pi || ref) + beta KL(pi' || ref)

    The game is symmetric: ``V(pi, pi') + V(pi', pi) = 1``. For beta > 0 it has one equilibrium, the quantal response
    equilibrium ``pi* = ref exp(P pi* / beta) / Z``, which has full support. With beta 0 the reference plays no part
    and there may be many.

    Attributes:
        preference: ``P[i, j]``, the probability that response i is preferred to j, shape ``(n, n)``; rounding errors
            of ``P + P^T = 1`` are evened out.
        reference: log-probs of the reference, shape ``(n,)``, nats; logits are normalized.
        beta: strength of the KL penalty, >= 0.

    Raises:
        ValueError: the table is not square, has an entry outside [0, 1] or does not satisfy ``P + P^T = 1``; the
            reference does not fit it or gives a response no chance; beta is negative or not finite.

    Source: arXiv 2312.00886, the regularized preference model (tau there is beta here); arXiv 2503.08942.
    """

    preference: Tensor
    reference: Tensor
    beta: float

    def __post_init__(self) -> None:
        preference = self.preference.detach().to(torch.float64)
        reference = self.reference.detach().to(torch.float64)
        if preference.dim() != 2 or preference.shape[0] != preference.shape[1]:
            raise ValueError(f"the preference must be a square table (n, n), got {tuple(preference.shape)}")
        if reference.shape != preference.shape[:1]:
            raise ValueError(
                f"the reference needs one log-prob a response, shape {tuple(preference.shape[:1])}, "
                f"got {tuple(reference.shape)}"
            )
        if not bool(((preference >= 0) & (preference <= 1)).all()):
            raise ValueError("the preference holds probabilities, but an entry lies outside [0, 1]")
        excess = (preference + preference.T - 1).abs().max().item()
        if excess > _TOLERANCE:
            raise ValueError(
                f"P[i, j] + P[j, i] must be 1, with 0.5 on the diagonal, but is off by up to {excess:.3g}; "
                "average the table with one minus its transpose"
            )
        if not bool(reference.isfinite().all()):
            raise ValueError("the reference must give every response a chance: its log-probs must be finite")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be zero (no penalty) or positive, got {self.beta}")
        object.__setattr__(self, "preference", (preference + 1 - preference.T) / 2)
        object.__setattr__(self, "reference", reference.log_softmax(-1))

    def win_rates(self, opponent: Tensor) -> Tensor:
        """``P(y > pi') = sum_y' P[y, y'] pi'(y')`` of every response y, shape ``(..., n)``; gradient in the opponent.

        >>> game = PreferenceGame(torch.tensor([[0.5, 0.9], [0.1, 0.5]]), torch.zeros(2), beta=0.5)
        >>> [round(rate, 4) for rate in game.win_rates(torch.zeros(2)).tolist()]
        [0.7, 0.3]
        """
        return opponent.to(torch.float64).softmax(-1) @ self.preference.T

    def payoff(self, policy: Tensor, opponent: Tensor) -> Tensor:
        """``V(pi, pi')``, shape ``(...)``, with gradient in both; 1/2 where the two are the same.

        The gradient in the logits of ``policy`` is ``E_{y ~ pi}[s(y) (P(y > pi') - beta log(pi(y) / ref(y)))]`` with
        ``s = grad log pi``: what a policy gradient against that opponent follows.
        """
        policy, opponent = _normalized(policy), _normalized(opponent)
        value = (policy.exp() * self.win_rates(opponent)).sum(-1)
        if self.beta == 0:
            return value
        return value - self.beta * (exact_kl(policy, self.reference) - exact_kl(opponent, self.reference))

    def best_response(self, opponent: Tensor) -> Tensor:
        """The policy of the largest ``V(., pi')``: ``br = ref exp(P pi' / beta) / Z``, log-probs ``(..., n)``.

        With beta 0 it is the limit beta -> 0: the reference, restricted to the responses that win most often.
        """
        rates = self.win_rates(opponent)
        if self.beta == 0:
            best = rates >= rates.amax(-1, keepdim=True) - 1e-12
            return torch.where(best, self.reference, -math.inf).log_softmax(-1)
        return (self.reference + rates / self.beta).log_softmax(-1)

    def duality_gap(self, policy: Tensor) -> Tensor:
        """``V(br, pi) - V(pi, br)`` with ``br`` the best response to pi, shape ``(...)``; 0 at the equilibrium alone.

        Computed as ``2 beta KL(pi || br)``, which is the same number and stays accurate far below 1e-16; with beta 0
        it is ``2 max_y P(y > pi) - 1``. Half of it is what a best response wins above 1/2 (the exploitability).

        >>> game = PreferenceGame(torch.tensor([[0.5, 0.9], [0.1, 0.5]]), torch.zeros(2), beta=0.0)
        >>> round(game.duality_gap(torch.zeros(2)).item(), 6)
        0.4
        """
        if self.beta == 0:
            return 2 * self.win_rates(policy).amax(-1) - 1
        return 2 * self.beta * exact_kl(_normalized(policy), self.best_response(policy))

    def residual(self, policy: Tensor, mixture: float = 0.0) -> Tensor:
        """``max_y |log pi(y) - log br(y)|`` with ``br`` the best response to :meth:`mixed`, shape ``(...)``, nats.

        It vanishes where :func:`setsail.lab.equilibrium` with that mixture is.

        Raises:
            ValueError: beta is 0.
        """
        if self.beta == 0:
            raise ValueError("without a penalty (beta 0) best responses have no log-probs to compare; use duality_gap")
        return (_normalized(policy) - self.best_response(self.mixed(policy, mixture))).abs().amax(-1)

    def mixed(self, policy: Tensor, weight: float) -> Tensor:
        """The geometric mixture ``pi^(1 - w) ref^w / Z``, log-probs ``(..., n)``; ``weight`` w is the *reference's*.

        Raises:
            ValueError: the weight is outside [0, 1].
        """
        if not 0 <= weight <= 1:
            raise ValueError(f"the reference's weight in a mixture lies in [0, 1], got {weight}")
        return ((1 - weight) * _normalized(policy) + weight * self.reference).log_softmax(-1)


def exact_kl(first: Tensor, second: Tensor) -> Tensor:
    """``KL(p || q) = sum_y q - p - p log(q / p)`` of two tables of log-probs, shape ``(...)``, nats, gradient in both.

    Because every term of this form is >= 0, the result is never negative, and the rounding of the normalization
    enters only squared: differences of 1e-8 between policies are still measured, as a KL of 1e-16 to half its digits.

    Args:
        first: ``log p``, shape ``(..., n)``; -inf where p is 0.
        second: ``log q``, the same or a broadcast shape.

    >>> p, q = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.25, 0.75], dtype=torch.float64)
    >>> round(exact_kl(p.log(), q.log()).item(), 12), round(math.log(2 / 3**0.5), 12)
    (0.143841036226, 0.143841036226)
    """
    p, q = first.exp(), second.exp()
    log_ratio = torch.where(p > 0, second - first, 0.0)
    # For close policies expm1 keeps the digits that q - p loses; for q far above p it would overflow.
    near = p * (torch.expm1(log_ratio.clamp(max=1.0)) - log_ratio)
    far = q - p - p * log_ratio
    return torch.where((p > 0) & (log_ratio < 1), near, far).sum(-1)


def _normalized(policy: Tensor) -> Tensor:
    return policy.to(torch.float64).log_softmax(-1)
