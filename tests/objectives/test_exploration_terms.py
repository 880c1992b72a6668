"""Terms that reward exploration: their sign, their expectation, their floor, and that one of them finds something."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bandit import numbers
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.rare_arm import search
from setsail.methods import Addend, get
from setsail.objectives import (
    GroupLogProbs,
    LogProbs,
    dpo,
    floored_log_ratio,
    forward_kl_sampled,
    likelihood,
    negative_log_likelihood,
    sample_likelihood,
)
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

REFERENCE = numbers(0.4, 0.3, 0.2, 0.1).log()
LOGITS = numbers(0.5, 0.1, -0.3, -0.2)


def _bandit() -> tuple[TabularPolicy, EnumerablePolicy]:
    return TabularPolicy(LOGITS[None]), TabularPolicy(REFERENCE[None]).frozen()


def _expected(
    term: Callable[[Tensor, Tensor], Tensor],
    policy: EnumerablePolicy,
    reference: EnumerablePolicy,
    sampler: EnumerablePolicy,
) -> Tensor:
    """``E_{y ~ sampler}[term]``, the samples held fixed; mean over prompts."""
    law = sampler.log_probs().detach().exp()
    each = term(policy.log_probs().flatten(), reference.log_probs().flatten())
    return (law.flatten() * each).sum() / len(law)


# The likelihood of the reference's samples (arXiv 2405.21046).


def test_in_logits_the_expected_gradient_of_the_bonus_is_reference_minus_policy() -> None:
    policy, reference = _bandit()

    def value() -> Tensor:
        return _expected(sample_likelihood, policy, reference, reference)

    wanted = REFERENCE.exp() - LOGITS.softmax(-1)
    torch.testing.assert_close(lab.gradient(value(), policy), wanted, atol=1e-15, rtol=0)
    torch.testing.assert_close(lab.finite_difference(value, lab.parameters(policy)), wanted, atol=1e-9, rtol=0)


def test_at_the_reference_the_bonus_has_no_expected_gradient() -> None:
    _, reference = _bandit()
    policy = TabularPolicy(REFERENCE[None])
    assert lab.gradient(_expected(sample_likelihood, policy, reference, reference), policy).abs().max().item() < 1e-16


def test_on_samples_of_the_policy_the_bonus_has_no_expected_gradient_anywhere() -> None:
    policy, reference = _bandit()
    assert lab.gradient(_expected(sample_likelihood, policy, reference, policy), policy).abs().max().item() < 1e-15


def test_the_bonus_is_the_forward_kl_turned_around() -> None:
    policy, reference = lab.token_world()[0], lab.token_world()[1].reference
    bonus = lab.gradient(_expected(sample_likelihood, policy, reference, reference), policy)
    penalty = lab.gradient(_expected(forward_kl_sampled, policy, reference, reference), policy)
    assert bonus.abs().max().item() > 1e-2
    torch.testing.assert_close(bonus, -penalty, atol=1e-15, rtol=0)
    assert torch.equal(sample_likelihood(LOGITS, REFERENCE), LOGITS)


@pytest.mark.parametrize(
    ("term", "alpha", "finds"),
    [(sample_likelihood, 0.02, 20), (sample_likelihood, 0.0, 0), (negative_log_likelihood, 0.02, 0)],
    ids=["bonus", "none", "wrong sign"],
)
def test_only_the_bonus_finds_an_arm_that_nobody_draws(
    term: Callable[[Tensor, Tensor], Tensor], alpha: float, finds: int
) -> None:
    """The reference gives it 1 in 10,000; the paper's point, and a test of the sign."""
    addend = Addend(name="optimism", samples="reference", function=term, coefficient=alpha)
    method = get("xpo").with_parts(addends=(addend,))
    runs = [search(method, torch.from_numpy(stream(seed, "explore").random((60, 3)))) for seed in range(20)]
    assert sum(run.found is not None for run in runs) == finds
    # 0.90 over many seeds; a run ends with nearly all of the mass on it or none.
    mass = sum(run.mass[-1] for run in runs) / len(runs)
    assert mass > 0.75 if finds else mass < 1e-3


# The floored log-ratio (arXiv 2405.19332).


def _pair() -> LogProbs:
    return LogProbs(numbers(-20.0), numbers(-25.0), numbers(-22.0), numbers(-24.0))


def test_the_loss_of_one_pair_with_its_exploration_sample() -> None:
    preference = dpo(_pair(), beta=0.1)
    assert preference.item() == pytest.approx(0.55435524, abs=5e-9)
    loss = preference + 0.5 * 0.1 * floored_log_ratio(numbers(-18.0), numbers(-19.0))
    assert loss.item() == pytest.approx(0.60435524, abs=5e-9)


@pytest.mark.parametrize("alpha", [0.5, 0.001])
def test_exploration_is_likelihood_training_with_a_negative_coefficient(alpha: float) -> None:
    """Regularized by ``- eta beta log pi`` with eta = -alpha (arXiv 2405.16436), up to ``alpha beta log pi_ref``."""
    policy = numbers(-18.0).requires_grad_()
    reference, coefficient = numbers(-19.0), alpha * 0.1
    explored = coefficient * floored_log_ratio(policy, reference)
    single = GroupLogProbs(policy[:, None], reference[:, None])
    imitated = -coefficient * likelihood(single, torch.zeros(1, 1), length_normalize=False)
    assert (imitated - explored).item() == pytest.approx(coefficient * reference.item(), abs=1e-15)
    slopes = [torch.autograd.grad(value, policy)[0].item() for value in (explored, imitated)]
    assert slopes[0] == slopes[1] == pytest.approx(coefficient)


def test_the_exploration_term_raises_an_arm_that_is_likelier_than_in_the_reference() -> None:
    policy, reference = _bandit()
    found = 0.3 * 0.5 * lab.gradient(_expected(floored_log_ratio, policy, reference, reference), policy)
    assert found[3].item() == pytest.approx(-0.013471, abs=5e-7)
    assert found[3].item() == pytest.approx(0.3 * 0.5 * (0.1 - LOGITS.softmax(-1)[3].item()), abs=1e-15)
    at_reference = TabularPolicy(REFERENCE[None])
    slope = lab.gradient(_expected(floored_log_ratio, at_reference, reference, reference), at_reference)
    assert slope.abs().max().item() < 1e-16


def test_below_the_floor_a_completion_is_not_pushed_any_further() -> None:
    policy = numbers(-28.9, -29.1, -400.0, -5.0).requires_grad_()
    reference = torch.full((4,), -19.0, dtype=torch.float64, requires_grad=True)
    value = floored_log_ratio(policy, reference)
    assert value.tolist() == pytest.approx([-9.9, -10.0, -10.0, 14.0])
    slopes = torch.autograd.grad(value.sum(), policy)
    assert slopes[0].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert not floored_log_ratio(policy.detach(), reference).requires_grad


def test_without_a_floor_the_term_has_no_lower_bound() -> None:
    away, reference = numbers(-1e6), numbers(-19.0)
    assert floored_log_ratio(away, reference, floor=float("-inf")).item() == -1e6 + 19
    assert floored_log_ratio(away, reference, floor=-3.0).item() == -3.0


@pytest.mark.parametrize("floor", [0.0, 1.0, float("nan")])
def test_a_floor_lies_below_the_reference(floor: float) -> None:
    with pytest.raises(ValueError, match="floor must be a log-ratio below 0 nats, got"):
        floored_log_ratio(numbers(-1.0), numbers(-1.0), floor=floor)
