"""Policy-gradient surrogates: their expected gradients by enumeration, their clips, and their known numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.objectives import GroupLogProbs, GroupObjective, a_lol, grpo, k3, leave_one_out, p3o, reinforce, rloo
from setsail.objectives.policy_gradient import pessimistic
from setsail.policies.tabular import TabularPolicy

POLICY, REFERENCE = (0.2, -0.1, 0.4, 0.0), (0.4, -0.3, 0.0, 0.6)
OLD, REWARD = (0.0, 0.3, -0.2, 0.1), (1.0, -2.0, 0.5, 3.0)
GRADIENT = [0.083641, -0.525840, -0.059361, 0.501561]
BETA = 0.3

p3o_unclipped = partial(p3o, clip=None)


def row(*numbers: float) -> Tensor:
    """One group, float64."""
    return torch.tensor([numbers], dtype=torch.float64)


def _policy(logits: tuple[float, ...] = POLICY) -> TabularPolicy:
    return TabularPolicy(row(*logits))


def _every_group(size: int) -> Tensor:
    """All groups of ``size`` of the four responses, in every order, shape ``(4 ** size, size)``."""
    return torch.cartesian_prod(*[torch.arange(4)] * size).view(-1, size)


def expected_gradient(
    objective: Callable[..., Tensor],
    size: int,
    policy: TabularPolicy,
    reference: TabularPolicy,
    reward: Tensor,
    sampler: TabularPolicy | None = None,
    **arguments: object,
) -> Tensor:
    """``E[grad loss]`` over groups drawn from the sampler (the policy where none is given), without sampling."""
    groups = _every_group(size)
    drawn = (sampler or policy).log_probs().detach()[0][groups]
    if sampler is not None:
        arguments = {"old_policy": drawn, **arguments}
    record = GroupLogProbs(policy.log_probs()[0][groups], reference.log_probs().detach()[0][groups])
    loss = objective(record, reward[0][groups], **arguments)
    return lab.gradient((drawn.sum(-1).exp() * loss).sum(), policy)


def _rlhf_gradient(policy: TabularPolicy, reference: TabularPolicy, reward: Tensor, beta: float) -> Tensor:
    return lab.gradient(lab.expected_reward(policy, reward) - beta * lab.reverse_kl(policy, reference), policy)


# Expected gradients.

UNBIASED: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "reinforce": (reinforce, (1, 2)),
    "reinforce-baseline": (partial(reinforce, baseline=0.7), (1, 3)),
    "rloo": (rloo, (2, 3, 4)),
    "p3o": (p3o_unclipped, (2, 3, 4)),
    "p3o-joint": (partial(p3o, clip=None, joint=True), (2, 3)),
    "p3o-clipped": (p3o, (2,)),
}


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("name", UNBIASED)
def test_on_policy_the_expected_gradient_is_that_of_reward_minus_kl(name: str, beta: float) -> None:
    objective, sizes = UNBIASED[name]
    policy, reference, reward = _policy(), _policy(REFERENCE), row(*REWARD)
    wanted = -_rlhf_gradient(policy, reference, reward, beta)
    for size in sizes:
        found = expected_gradient(objective, size, policy, reference, reward, beta=beta)
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    if beta == 0:
        assert wanted.tolist() == pytest.approx([-each for each in GRADIENT], abs=1e-6)


def test_a_group_mean_as_baseline_shrinks_the_gradient() -> None:
    policy, reward, size = _policy(), row(*REWARD), 3
    baseline = reward[0][_every_group(size)].mean(-1)
    found = expected_gradient(reinforce, size, policy, policy.frozen(), reward, beta=0.0, baseline=baseline)
    wanted = -(size - 1) / size * _rlhf_gradient(policy, policy.frozen(), reward, 0.0)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


def test_a_baseline_of_the_other_prompts_fits() -> None:
    logps, values = _record(), _values()
    baseline = leave_one_out(values.mean(-1))
    torch.testing.assert_close(
        reinforce(logps, values, baseline=baseline), reinforce(logps, values - baseline.unsqueeze(-1))
    )


@pytest.mark.parametrize("size", [2, 3])
def test_unscaled_grpo_follows_a_shrunken_reward_gradient_and_the_other_kl(size: int) -> None:
    policy, reference, reward = _policy(), _policy(REFERENCE), row(*REWARD)
    objective = partial(grpo, scale_rewards=False, beta=BETA)
    found = expected_gradient(objective, size, policy, reference, reward)
    shrunken = (size - 1) / size * _rlhf_gradient(policy, reference, reward, 0.0)
    forward = lab.gradient(lab.forward_kl(policy, reference), policy)
    torch.testing.assert_close(found, BETA * forward - shrunken, atol=1e-12, rtol=1e-12)
    reverse = lab.gradient(lab.reverse_kl(policy, reference), policy)
    assert (forward - reverse).abs().max() > 0.01


@pytest.mark.parametrize("joint", [False, True])
def test_unclipped_p3o_corrects_for_an_older_sampler(joint: bool) -> None:
    policy, old, reward = _policy(), _policy(OLD), row(*REWARD)
    objective = partial(p3o, clip=None, joint=joint, beta=0.0)
    for size in (2, 3):
        found = expected_gradient(objective, size, policy, old, reward, sampler=old)
        assert found.tolist() == pytest.approx([-each for each in GRADIENT], abs=1e-6)
        torch.testing.assert_close(found, -_rlhf_gradient(policy, old, reward, 0.0), atol=1e-12, rtol=1e-12)


def test_p3o_takes_its_kl_penalty_at_sampling_time() -> None:
    """The penalized reward is a constant: it does not follow the policy after the completions are drawn."""
    policy, old, reference, reward = _policy(), _policy(OLD), _policy(REFERENCE), row(*REWARD)
    penalized = reward - BETA * (old.log_probs() - reference.log_probs()).detach()
    found = expected_gradient(partial(p3o_unclipped, beta=BETA), 2, policy, reference, reward, sampler=old)
    torch.testing.assert_close(found, -_rlhf_gradient(policy, old, penalized, 0.0), atol=1e-12, rtol=1e-12)


def test_one_importance_ratio_is_not_enough_and_the_product_form_is_zero() -> None:
    """What P3O must not be: rho_1 alone is off by .14, and log(pi(y1) pi(y2)) has no gradient at all."""
    policy, old, reward = _policy(), _policy(OLD), row(*REWARD)

    def one_ratio(logps: GroupLogProbs, values: Tensor, old_policy: Tensor) -> Tensor:
        lead, ratio = values[:, 0] - values[:, 1], (logps.policy - old_policy).detach().exp()[:, 0]
        return -lead * ratio * (logps.policy[:, 0] - logps.policy[:, 1]) / 2

    def product(logps: GroupLogProbs, values: Tensor) -> Tensor:
        return -(values[:, 0] - values[:, 1]) * logps.policy.sum(-1) / 2

    off = expected_gradient(one_ratio, 2, policy, old, reward, sampler=old) + row(*GRADIENT)[0]
    assert off.abs().max().item() == pytest.approx(0.14, abs=0.005)
    nothing = expected_gradient(product, 2, policy, old, reward)
    torch.testing.assert_close(nothing, torch.zeros(4, dtype=torch.float64), atol=1e-15, rtol=0)


def test_a_constant_on_the_rewards_moves_ppo_without_a_critic_but_not_p3o() -> None:
    policy, old, reward = _policy(), _policy(OLD), row(*REWARD)

    def ppo(logps: GroupLogProbs, values: Tensor, old_policy: Tensor) -> Tensor:
        return -pessimistic(values, (logps.policy - old_policy).exp(), 0.8, 1.2).mean(-1)

    moved = [
        (
            expected_gradient(objective, 2, policy, old, reward + 10, sampler=old)
            - expected_gradient(objective, 2, policy, old, reward, sampler=old)
        )
        for objective in (ppo, partial(p3o, beta=0.0))
    ]
    assert moved[0].abs().max().item() == pytest.approx(2.06, abs=0.01)
    torch.testing.assert_close(moved[1], torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


# The gradient of each surrogate, group by group.


def _record(groups: int = 6, size: int = 4) -> GroupLogProbs:
    numbers = torch.from_numpy(stream(0, "policy-gradient").normal(size=(2, groups, size))) - 20
    return GroupLogProbs(numbers[0].clone().requires_grad_(), numbers[1])


def _values(groups: int = 6, size: int = 4) -> Tensor:
    return torch.from_numpy(stream(0, "rewards").normal(size=(groups, size)))


def _slopes(objective: Callable[..., Tensor], logps: GroupLogProbs, values: Tensor, **arguments: object) -> Tensor:
    (found,) = torch.autograd.grad(objective(logps, values, **arguments).sum(), logps.policy)
    return found


def _without_own(numbers: Tensor) -> Tensor:
    """Mean of the others of the group, one loop at a time."""
    count = numbers.shape[1]
    return torch.stack([numbers[:, [j for j in range(count) if j != k]].mean(-1) for k in range(count)], -1)


def _reinforce_slope(values: Tensor, h: Tensor) -> Tensor:
    return -(values - 0.1 * h - 0.7)


def _rloo_slope(values: Tensor, h: Tensor) -> Tensor:
    penalized = values - 0.1 * h
    return -(penalized - _without_own(penalized))


def _grpo_slope(values: Tensor, h: Tensor) -> Tensor:
    normalized = (values - values.mean(-1, keepdim=True)) / (values.std(-1, keepdim=True) + 1e-4)
    return -normalized + 0.04 * (1 - (-h).exp())


def _a_lol_slope(values: Tensor, h: Tensor, ratio: bool = True, eps: float = 0.9, beta: float = 0.0) -> Tensor:
    weight = h.exp().clamp(1 - eps, 1 + eps) if ratio else 1.0
    return -(values - 0.2).clamp(min=0) * weight + beta


STATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reinforce": _reinforce_slope,
    "rloo": _rloo_slope,
    "p3o": _rloo_slope,
    "grpo": _grpo_slope,
    "a-lol": _a_lol_slope,
    "a-lol-unclipped": partial(_a_lol_slope, eps=math.inf),
    "a-lol-ref-free": partial(_a_lol_slope, ratio=False),
    "a-lol-kl": partial(_a_lol_slope, ratio=False, beta=0.3),
}


def _stated(name: str, logps: GroupLogProbs, values: Tensor) -> Tensor:
    """What the docstring says the gradient in ``log pi(y_k)`` is, on policy."""
    return STATED[name](values, logps.log_ratio().detach()) / values.shape[1]


SURROGATES: dict[str, Callable[..., Tensor]] = {
    "reinforce": partial(reinforce, baseline=0.7),
    "rloo": rloo,
    "p3o": p3o,
    "grpo": grpo,
    "a-lol": partial(a_lol, baseline=0.2),
    "a-lol-unclipped": partial(a_lol, baseline=0.2, clip=None),
    "a-lol-ref-free": partial(a_lol, baseline=0.2, importance_ratio=False),
    "a-lol-kl": partial(a_lol, baseline=0.2, importance_ratio=False, beta=0.3),
}
SINGLE = ("reinforce", "a-lol", "a-lol-unclipped", "a-lol-ref-free", "a-lol-kl")
each_surrogate = pytest.mark.parametrize("name", SURROGATES)


@each_surrogate
@pytest.mark.parametrize("size", [2, 4])
def test_the_gradient_is_the_one_that_is_stated(name: str, size: int) -> None:
    logps, values = _record(size=size), _values(size=size)
    found = _slopes(SURROGATES[name], logps, values)
    torch.testing.assert_close(found, _stated(name, logps, values), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("joint", [False, True])
def test_unclipped_p3o_is_rloo(size: int, joint: bool) -> None:
    logps, values = _record(size=size), _values(size=size)
    found = _slopes(p3o, logps, values, clip=None, joint=joint)
    torch.testing.assert_close(found, _slopes(rloo, logps, values), atol=1e-12, rtol=1e-12)


@each_surrogate
def test_one_value_a_group(name: str) -> None:
    loss = SURROGATES[name](_record(), _values())
    assert loss.shape == (6,)
    assert loss.dtype == torch.float64


@each_surrogate
def test_the_order_of_the_completions_has_no_meaning(name: str) -> None:
    logps, values, order = _record(), _values(), torch.tensor([2, 0, 3, 1])
    shuffled = GroupLogProbs(logps.policy.detach()[:, order].requires_grad_(), logps.reference[:, order])
    found = SURROGATES[name](shuffled, values[:, order])
    torch.testing.assert_close(found, SURROGATES[name](logps, values), atol=1e-12, rtol=1e-12)
    slope = _slopes(SURROGATES[name], shuffled, values[:, order])
    torch.testing.assert_close(slope, _slopes(SURROGATES[name], logps, values)[:, order], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", ["rloo", "p3o", "grpo"])
def test_a_constant_on_all_rewards_of_a_prompt_changes_no_gradient(name: str) -> None:
    logps, values = _record(), _values()
    shifted = values + torch.arange(6, dtype=torch.float64).unsqueeze(-1)
    found = _slopes(SURROGATES[name], logps, shifted)
    torch.testing.assert_close(found, _slopes(SURROGATES[name], logps, values), atol=1e-12, rtol=1e-12)


@each_surrogate
def test_groups_do_not_see_each_other(name: str) -> None:
    logps, values = _record(), _values()
    parts = [SURROGATES[name](logps.select(index), values[index]) for index in torch.arange(6).split(2)]
    torch.testing.assert_close(torch.cat(parts), SURROGATES[name](logps, values), atol=1e-12, rtol=1e-12)


# GRPO.


def test_grpo_on_policy_is_grpo_with_the_current_log_probs_as_old_ones() -> None:
    logps, values = _record(), _values()
    current = logps.policy.detach()
    torch.testing.assert_close(_slopes(grpo, logps, values), _slopes(grpo, logps, values, old_policy=current))


def test_scaled_grpo_does_not_see_the_unit_of_the_rewards() -> None:
    logps, values = _record(), 100 * _values()
    torch.testing.assert_close(_slopes(grpo, logps, 7 * values), _slopes(grpo, logps, values), atol=1e-5, rtol=1e-4)


def test_equal_rewards_leave_grpo_with_its_kl_term() -> None:
    logps = _record()
    found = grpo(logps, torch.full((6, 4), 3.0, dtype=torch.float64), beta=0.5)
    torch.testing.assert_close(found, 0.5 * k3(logps.policy, logps.reference).mean(-1))


# Refusals.


@pytest.mark.parametrize("name", ["rloo", "p3o", "grpo"])
def test_one_completion_has_nothing_to_be_compared_with(name: str) -> None:
    with pytest.raises(ValueError, match="compares at least 2 completions of a prompt, got 1"):
        SURROGATES[name](_record(size=1), _values(size=1))


@pytest.mark.parametrize("name", SINGLE)
def test_one_completion_is_enough_for_these(name: str) -> None:
    logps, values = _record(size=1), _values(size=1)
    torch.testing.assert_close(_slopes(SURROGATES[name], logps, values), _stated(name, logps, values))


@each_surrogate
@pytest.mark.parametrize("beta", [-0.1, math.nan, math.inf])
def test_beta_must_not_be_negative(name: str, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be zero or positive, got"):
        SURROGATES[name](_record(), _values(), beta=beta)


@pytest.mark.parametrize("objective", [grpo, p3o, a_lol])
@pytest.mark.parametrize("clip", [0.0, -0.2, math.nan])
def test_the_clip_range_must_be_positive(objective: Callable[..., Tensor], clip: float) -> None:
    with pytest.raises(ValueError, match="clip must be positive, got"):
        objective(_record(), _values(), clip=clip)


@pytest.mark.parametrize("objective", [grpo, p3o])
def test_old_log_probs_are_one_a_completion(objective: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"when it was drawn, shape \(6, 4\), got \(6, 4, 9\); sum over tokens"):
        objective(_record(), _values(), old_policy=torch.zeros(6, 4, 9))


@pytest.mark.parametrize("objective", [reinforce, a_lol])
def test_a_baseline_is_one_number_a_group(objective: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"one number a group, shape \(6,\), got \(6, 4\)"):
        objective(_record(), _values(), baseline=torch.zeros(6, 4))


@each_surrogate
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(6, 3), r"shape \(6, 4\), got torch.float32 of shape \(6, 3\)"),
        (torch.full((6, 4), torch.nan), "drop completions whose score is missing"),
    ],
    ids=["short", "missing"],
)
def test_rewards_that_do_not_fit_are_refused(name: str, values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SURROGATES[name](_record(), values)


def test_surrogates_are_group_objectives() -> None:
    objectives: list[GroupObjective] = [reinforce, rloo, grpo, p3o, a_lol]
    assert all(objective(_record(), _values()).shape == (6,) for objective in objectives)
