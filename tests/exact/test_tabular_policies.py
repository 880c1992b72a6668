"""The enumerable policies are distributions, sample what they state and agree with hand-made sums."""

from __future__ import annotations

import math

import pytest
import torch

from setsail import lab
from setsail.core import uniforms
from setsail.policies.tabular import (
    EnumerablePolicy,
    LogLinearPolicy,
    TabularPolicy,
    TabularTokenPolicy,
    token_prefixes,
    token_sequences,
)


def _log_linear() -> EnumerablePolicy:
    return LogLinearPolicy(torch.arange(12.0).view(1, 4, 3) / 7, torch.tensor([1.0, -2.0, 0.5]))


POLICIES = {
    "softmax": lambda: lab.golden_world()[0],
    "autoregressive": lambda: lab.token_world()[0],
    "log-linear": _log_linear,
}


@pytest.mark.parametrize("name", POLICIES)
def test_probabilities_sum_to_one_in_float64(name: str) -> None:
    table = POLICIES[name]().log_probs()
    assert table.dtype == torch.float64
    torch.testing.assert_close(table.exp().sum(-1), torch.ones(len(table), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", POLICIES)
def test_samples_have_the_stated_frequencies(name: str) -> None:
    policy = POLICIES[name]()
    draws = 40_000
    numbers = torch.from_numpy(uniforms(0, "sample", [(name,)], draws))
    drawn = policy.sample(torch.tensor([0]), numbers)[0]
    chance = policy.log_probs()[0].detach().exp()
    found = torch.bincount(drawn, minlength=len(chance)).double() / draws
    assert ((found - chance).abs() / (chance * (1 - chance) / draws).sqrt()).max().item() < 4.5


def test_the_largest_uniform_draws_the_last_response_at_most() -> None:
    policy = TabularPolicy.uniform(prompts=1, responses=7)
    assert policy.sample(torch.tensor([0]), torch.tensor([[1 - 1e-17]])).item() == 6


def test_sampling_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="one row of uniforms a prompt"):
        TabularPolicy.uniform(prompts=2, responses=2).sample(torch.tensor([0, 1]), torch.zeros(1, 3))


def test_every_sequence_is_enumerated_closed_or_cut() -> None:
    sequences = token_sequences(vocabulary=3, max_length=3)
    assert len(sequences) == len(set(sequences)) == 1 + 2 + 4 + 8
    closed = [sequence for sequence in sequences if sequence[-1] == 0]
    assert all(0 not in sequence[:-1] for sequence in sequences)
    assert len(closed) == 7
    assert all(len(sequence) == 3 for sequence in sequences if sequence[-1] != 0)
    assert len(token_prefixes(vocabulary=3, max_length=3)) == 7


def test_a_sequence_is_the_sum_of_its_tokens() -> None:
    policy, _ = lab.token_world()
    for index, sequence in enumerate(policy.sequences()):
        parts = policy.token_log_probs(1, sequence)
        assert len(parts) == len(sequence) == policy.lengths()[index]
        assert parts.sum().item() == pytest.approx(policy.sequence_log_probs()[1, index].item(), abs=1e-12)


def test_an_answer_cut_at_the_limit_has_no_eos_factor() -> None:
    policy = TabularTokenPolicy.uniform(prompts=1, vocabulary=3, max_length=2)
    table = dict(zip(policy.sequences(), policy.sequence_log_probs()[0].tolist(), strict=True))
    assert table[(1, 2)] == pytest.approx(2 * math.log(1 / 3))
    assert table[(0,)] == pytest.approx(math.log(1 / 3))
    finished = dict(zip(policy.sequences(), policy.finished().tolist(), strict=True))
    assert finished[(1, 0)]
    assert not finished[(1, 2)]


def test_another_eos_gives_the_same_policy_under_renamed_tokens() -> None:
    policy = TabularTokenPolicy.uniform(prompts=1, vocabulary=3, max_length=2, eos=2)
    assert (2,) in policy.sequences()
    assert policy.finished().sum().item() == 3


@pytest.mark.parametrize("name", POLICIES)
def test_a_pair_record_reads_the_tables_and_only_the_policy_has_gradient(name: str) -> None:
    policy = POLICIES[name]()
    index = torch.tensor([0])
    logps = policy.pair_log_probs(policy, index, index, index + 1)
    assert logps.policy_first.item() == policy.log_probs()[0, 0].item()
    assert logps.policy_second.item() == policy.logps(index, index + 1).item()
    assert logps.policy_first.requires_grad
    assert not logps.reference_first.requires_grad
    assert logps.log_ratio_difference().item() == 0
    assert (logps.length_first, logps.length_second) == (policy.lengths()[0], policy.lengths()[1])


def test_a_frozen_copy_does_not_follow() -> None:
    policy = TabularPolicy.uniform(prompts=1, responses=2)
    copy = policy.frozen()
    with torch.no_grad():
        policy.logits += torch.tensor([1.0, 0.0])
    assert copy.log_probs()[0, 0].item() == pytest.approx(math.log(0.5))
    assert lab.parameters(copy) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TabularPolicy(torch.zeros(3)), r"\(prompts, responses\), got \(3,\)"),
        (lambda: LogLinearPolicy(torch.zeros(2, 3)), r"\(prompts, responses, features\), got \(2, 3\)"),
        (lambda: LogLinearPolicy(torch.zeros(1, 2, 3), torch.zeros(2)), "one weight a feature"),
        (lambda: TabularTokenPolicy(torch.zeros(1, 2, 3), max_length=2), "with 3 prefixes for 3 tokens"),
        (lambda: token_prefixes(3, 2, eos=3), "eos among the tokens"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_finite_differences_restore_the_parameters() -> None:
    policy, _ = lab.golden_world()
    before = policy.logits.detach().clone()
    slope = lab.finite_difference(lambda: policy.logits.square().sum(), lab.parameters(policy))
    torch.testing.assert_close(slope, 2 * before.flatten(), atol=1e-9, rtol=0)
    assert torch.equal(policy.logits, before)


def test_pair_gradients_add_up_to_the_expected_gradient() -> None:
    policy, world = lab.token_world()
    surrogate = lambda logps, p: (logps.policy_first * p).square()  # noqa: E731
    each = lab.per_pair_gradients(policy, world.reference, world.data, surrogate, world.data.p)
    wanted = lab.expected_gradient(policy, world.reference, world.data, surrogate, "averaged")
    torch.testing.assert_close(world.data.weight @ each, wanted, atol=1e-12, rtol=0)


def test_the_reward_kl_frontier_refuses_what_no_policy_reaches() -> None:
    _, world, reward = lab.six_responses()
    with pytest.raises(ValueError, match="ask for a smaller KL"):
        lab.best_reward_at_kl(world.reference, reward, kl=3.0)


def test_missing_preferences_are_refused_not_invented() -> None:
    policy, world = lab.golden_world()
    with pytest.raises(ValueError, match="carry no preference"):
        lab.expected_gradient(policy, world.reference, lab.policy_pairs(policy), lambda logps, p: p)


def test_a_preference_of_another_shape_is_refused() -> None:
    policy, _ = lab.golden_world()
    with pytest.raises(ValueError, match=r"must have shape \(1, 3, 3\)"):
        lab.policy_pairs(policy, torch.zeros(1, 2, 2))


def test_draws_must_fill_their_batches() -> None:
    policy, world = lab.golden_world()
    with pytest.raises(ValueError, match="multiple of the batch"):
        lab.monte_carlo_gradient(policy, world.reference, lambda logps, p: p, draws=10, batch=3)
