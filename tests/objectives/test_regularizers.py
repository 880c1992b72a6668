"""Terms added to a loss: values, gradients, bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from setsail.core import stream
from setsail.objectives import (
    forward_kl_full,
    k1,
    k3,
    negative_entropy,
    negative_log_likelihood,
    reverse_kl_full,
)


def _logits(purpose: str, rows: int = 5, vocabulary: int = 7) -> Tensor:
    return torch.from_numpy(stream(0, "regularizers", purpose).normal(size=(rows, vocabulary)))


def _log_probs(purpose: str) -> Tensor:
    return _logits(purpose).log_softmax(-1)


def test_the_likelihood_term_pulls_every_completion_up_alike() -> None:
    policy = torch.tensor([-2.0, -9.0], dtype=torch.float64, requires_grad=True)
    value = negative_log_likelihood(policy, torch.zeros(2))
    assert value.tolist() == [2.0, 9.0]
    assert torch.autograd.grad(value.sum(), policy)[0].tolist() == [-1.0, -1.0]


def test_entropy_lies_between_a_sure_token_and_an_even_choice() -> None:
    even = torch.zeros(1, 8).log_softmax(-1)
    sure = torch.tensor([[60.0] + [0.0] * 7]).log_softmax(-1)
    assert math.isclose(negative_entropy(even, even).item(), -math.log(8), rel_tol=1e-6)
    assert abs(negative_entropy(sure, sure).item()) < 1e-12
    values = negative_entropy(_log_probs("a"), _log_probs("b"))
    assert bool(((values < 0) & (values > -math.log(7))).all())


def test_descending_the_entropy_term_spreads_the_policy() -> None:
    logits = _logits("a").requires_grad_()
    before = negative_entropy(logits.log_softmax(-1), logits).sum()
    [slope] = torch.autograd.grad(before, logits)
    after = negative_entropy((logits - 0.1 * slope).log_softmax(-1), logits).sum()
    assert after < before
    assert slope.sum(-1).abs().max() < 1e-12


def test_both_full_divergences_are_what_their_names_say() -> None:
    policy, reference = _log_probs("a"), _log_probs("b")
    torch.testing.assert_close(reverse_kl_full(policy, reference), forward_kl_full(reference, policy))
    assert bool((reverse_kl_full(policy, reference) > 0).all())
    torch.testing.assert_close(reverse_kl_full(policy, policy), torch.zeros(5, dtype=torch.float64))


def test_the_full_divergence_is_the_mean_of_its_estimators() -> None:
    policy, reference = _log_probs("a"), _log_probs("b")
    for estimator in (k1, k3):
        mean = (policy.exp() * estimator(policy, reference)).sum(-1)
        torch.testing.assert_close(reverse_kl_full(policy, reference), mean)


def test_the_gradient_of_the_full_divergence_against_finite_differences() -> None:
    reference = _log_probs("b")

    def value(logits: Tensor) -> Tensor:
        return reverse_kl_full(logits.log_softmax(-1), reference)

    assert torch.autograd.gradcheck(value, (_logits("a").requires_grad_(),))
