"""Imitating the best of n: what the likelihood's minimizer is, over rounds, with a penalty, and per token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bandit import minimizer, numbers
from torch import Tensor

from setsail.core import stream
from setsail.objectives import GroupLogProbs, forward_kl_full, likelihood

START = numbers(0.4, 0.3, 0.2, 0.1)
"""Four responses, each better than the one before it."""

BEST_OF_FOUR = (0.0256, 0.2145, 0.4160, 0.3439)


def _best_of(policy: Tensor, draws: int) -> Tensor:
    """Law of the best of so many draws: the distribution function to that power."""
    below = policy.cumsum(-1)
    below[-1] = 1.0
    return below.pow(draws).diff(prepend=torch.zeros(1, dtype=policy.dtype))


def _imitated(law: Tensor) -> Tensor:
    """The policy that minimizes the expected likelihood loss on completions of that law."""

    def risk(policy: Tensor) -> Tensor:
        single = GroupLogProbs(policy[:, None], torch.zeros(len(law), 1, dtype=torch.float64))
        return (law * likelihood(single, torch.zeros(len(law), 1), length_normalize=False)).sum()

    return minimizer(risk, len(law)).exp()


def test_the_likelihood_is_the_mean_over_completions_of_their_mean_over_tokens() -> None:
    logps = GroupLogProbs(
        torch.tensor([[-6.0, -8.0], [-1.0, -10.0]]), torch.zeros(2, 2), torch.tensor([[3, 2], [1, 5]])
    )
    values = torch.zeros(2, 2)
    assert likelihood(logps, values).tolist() == [(2 + 4) / 2, (1 + 2) / 2]
    assert likelihood(logps, values, length_normalize=False).tolist() == [7.0, 5.5]


def test_every_completion_is_raised_alike_a_token() -> None:
    policy = torch.full((1, 2), -6.0, requires_grad=True)
    logps = GroupLogProbs(policy, torch.zeros(1, 2), torch.tensor([[2, 4]]))
    (slope,) = torch.autograd.grad(likelihood(logps, torch.tensor([[5.0, -5.0]])).sum(), policy)
    assert slope.tolist() == [[-1 / 4, -1 / 8]]


def test_neither_values_nor_reference_enter_the_likelihood() -> None:
    drawn = torch.from_numpy(stream(0, "likelihood").normal(size=(4, 5, 3)))
    lengths = torch.arange(1, 16).view(5, 3)
    first = likelihood(GroupLogProbs(drawn[0], drawn[1], lengths), drawn[2])
    assert first.shape == (5,)
    assert torch.equal(first, likelihood(GroupLogProbs(drawn[0], drawn[2], lengths), drawn[3]))


def test_the_order_of_completions_means_nothing_to_the_likelihood() -> None:
    drawn = torch.from_numpy(stream(0, "likelihood").normal(size=(2, 5, 3)))
    lengths, order = torch.arange(1, 16).view(5, 3), torch.tensor([2, 0, 1])
    permuted = GroupLogProbs(drawn[0][:, order], drawn[1][:, order], lengths[:, order])
    wanted = likelihood(GroupLogProbs(drawn[0], drawn[1], lengths), drawn[1])
    torch.testing.assert_close(likelihood(permuted, drawn[1][:, order]), wanted, atol=1e-14, rtol=0)


def test_the_likelihood_refuses_what_does_not_fit() -> None:
    logps = GroupLogProbs(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="needs the lengths of the completions in the record; pass length="):
        likelihood(logps, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"one number a completion, shape \(2, 1\)"):
        likelihood(logps, torch.zeros(2), length_normalize=False)


# Best of n, over and over (arXiv 2304.06767).


def test_a_round_of_imitating_the_best_of_four() -> None:
    found = _imitated(_best_of(START, 4))
    assert found.tolist() == pytest.approx(BEST_OF_FOUR, abs=1e-12)
    divergence = (found * (found / START).log()).sum().item()
    assert divergence == pytest.approx(0.58711, abs=5e-6)
    assert divergence <= math.log(4) - 3 / 4


def test_three_rounds_of_the_best_of_four_are_the_best_of_64() -> None:
    """A round raises the distribution function of the reward to the fourth power."""
    policy = START
    for _ in range(3):
        law = _best_of(policy, 4)
        policy = _imitated(law) if law.min() > 1e-9 else law / law.sum()
    assert policy.tolist() == pytest.approx(_best_of(START, 64).tolist(), abs=1e-12)
    assert policy.tolist() == pytest.approx((0.0, 1.2198e-10, 1.17902e-3, 0.998821), abs=5e-7)


def _drawn_best_of_four(policy: Tensor) -> list[float]:
    """Frequencies of the best of four among 200,000 rounds of drawing."""
    uniforms = stream(0, "best-of-four").random((200_000, 4))
    best = np.searchsorted(policy.cumsum(-1).numpy()[:-1], uniforms, side="right").max(-1)
    return (np.bincount(best, minlength=4) / len(best)).tolist()


def test_drawn_completions_have_the_law_of_the_best_of_four() -> None:
    found = _drawn_best_of_four(START)
    assert found == pytest.approx(BEST_OF_FOUR, abs=5e-3)
    assert _imitated(torch.tensor(found, dtype=torch.float64)).tolist() == pytest.approx(found, abs=1e-10)


def test_at_another_temperature_it_is_another_law() -> None:
    cold = (START.log() / 0.85).softmax(-1)
    wanted = (0.0327, 0.2490, 0.4246, 0.2937)
    assert _best_of(cold, 4).tolist() == pytest.approx(wanted, abs=5e-5)
    assert _drawn_best_of_four(cold) == pytest.approx(wanted, abs=5e-3)


def test_per_token_the_minimizer_leans_to_short_completions() -> None:
    """It is the law of the completions divided by their lengths, no longer the law itself."""
    law, lengths = _best_of(START, 4), torch.tensor([1, 2, 4, 8])

    def risk(policy: Tensor) -> Tensor:
        single = GroupLogProbs(policy[:, None], torch.zeros(4, 1, dtype=torch.float64), lengths[:, None])
        return (law * likelihood(single, torch.zeros(4, 1))).sum()

    wanted = law / lengths / (law / lengths).sum()
    assert minimizer(risk, 4).exp().tolist() == pytest.approx(wanted.tolist(), abs=1e-10)


# The likelihood with a penalty (arXiv 2310.16763).


def _penalized(penalty: str) -> list[float]:
    """One position, the third response imitated, coefficient 0.35."""

    def loss(policy: Tensor) -> Tensor:
        winner = GroupLogProbs(policy[2].view(1, 1), START[2].log().view(1, 1), torch.ones(1, 1, dtype=torch.int64))
        forward = forward_kl_full(policy, START.log())
        reverse = (policy.exp() * (policy - START.log())).sum()
        return likelihood(winner, torch.ones(1, 1)).squeeze() + 0.35 * (forward if penalty == "forward" else reverse)

    return minimizer(loss, 4).exp().tolist()


def test_the_likelihood_with_a_forward_kl_mixes_the_winner_into_the_start() -> None:
    """``(one-hot + beta p0) / (1 + beta)``; the reverse KL ends elsewhere."""
    found = _penalized("forward")
    assert found == pytest.approx((0.1037, 0.0778, 0.7926, 0.0259), abs=5e-5)
    one_hot = numbers(0.0, 0.0, 1.0, 0.0)
    assert found == pytest.approx(((one_hot + 0.35 * START) / 1.35).tolist(), abs=1e-12)
    assert _penalized("reverse") == pytest.approx((0.0651, 0.0488, 0.8697, 0.0163), abs=5e-5)
