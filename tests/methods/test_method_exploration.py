"""The exploring methods beside those without a bonus: what the bonus adds, on which answers, with which sign."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from exact_rounds import law, scored_world
from torch import Tensor

from setsail import lab
from setsail.lab import TabularWorld
from setsail.methods import Method, Source, get
from setsail.policies.tabular import TabularPolicy

REFERENCE = law(0.4, 0.3, 0.2, 0.1)
LOGITS = torch.tensor([[0.5, 0.1, -0.3, -0.2]], dtype=torch.float64)


def _bandit() -> tuple[TabularPolicy, TabularWorld]:
    """One prompt, four answers; the data set compares the first two, which no other answer beats or loses to."""
    return TabularPolicy(LOGITS), scored_world(REFERENCE, 1.0, -1.0, 0.0, 0.0)


def _bonus(method: Method, policy: TabularPolicy, world: TabularWorld) -> Tensor:
    """What the addends add to the expected gradient."""
    slopes = [lab.mixture_gradient(each, policy, world) for each in (method, method.with_parts(addends=()))]
    return slopes[0] - slopes[1]


# XPO.


def test_without_its_bonus_xpo_is_online_dpo_between_policy_and_reference_bit_for_bit() -> None:
    online = get("online-dpo").with_parts(routes=get("xpo").routes)
    runs = []
    for method in (get("xpo").configured(addends={"optimism": 0.0}), online):
        policy, world = lab.token_world()
        runs.append(
            [(step.gradient, policy.logits.detach().clone()) for step in lab.train(method, policy, world, steps=20)]
        )
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("alpha", [1e-5, 0.3])
def test_the_bonus_of_xpo_is_reference_minus_policy(alpha: float) -> None:
    policy, world = _bandit()
    found = _bonus(get("xpo").configured(addends={"optimism": alpha}), policy, world)
    wanted = alpha * (REFERENCE.log_probs().exp() - policy.log_probs().exp()).detach()[0]
    torch.testing.assert_close(found, wanted, atol=1e-15, rtol=0)
    # At the reference there is none.
    at_reference = TabularPolicy(REFERENCE.logits)
    assert _bonus(get("xpo").configured(addends={"optimism": alpha}), at_reference, world).abs().max().item() < 1e-16


def test_a_bonus_on_the_policys_own_answers_would_do_nothing() -> None:
    policy, world = _bandit()
    [addend] = get("xpo").configured(addends={"optimism": 0.3}).addends
    own = get("xpo").with_parts(addends=(replace(addend, samples="policy"),))
    assert _bonus(own, policy, world).abs().max().item() < 1e-15


# SELM.


def _selm(alpha: float, beta: float, *, greedy: bool) -> Method:
    """With the greedy answer of the default, or with the law that the greedy answer stands for."""
    method = get("selm").configured(parameters={"beta": beta}, addends={"optimism": alpha * beta})
    if greedy:
        return method
    route = method.routes[0]
    drawn = (Source(origin="reference"), *route.candidates[1:])
    return method.with_parts(routes=(replace(route, candidates=drawn),))


def test_exploration_raises_an_answer_that_no_pair_covers() -> None:
    """``alpha beta (pi_ref - pi)`` with alpha 0.3 and beta 0.5; descent on a negative slope is a step up."""
    policy, world = _bandit()
    slope = lab.mixture_gradient(_selm(0.3, 0.5, greedy=False), policy, world)
    assert slope[3].item() == pytest.approx(-0.013471, abs=5e-7)
    at_reference = TabularPolicy(REFERENCE.logits)
    still = lab.mixture_gradient(_selm(0.3, 0.5, greedy=False), at_reference, world)
    assert still[2:].abs().max().item() < 1e-15
    assert still[0].item() < 0 < still[1].item()


def test_exploration_is_imitation_of_the_greedy_answer_turned_around() -> None:
    """The regularizer ``- eta beta log pi(y')`` of arXiv 2405.16436 with eta = -alpha: same gradient."""
    policy, world = _bandit()
    chosen = torch.zeros(4, dtype=torch.float64)
    chosen[0] = 1.0
    wanted = 0.3 * 0.5 * (chosen - policy.log_probs().detach().exp()[0])
    torch.testing.assert_close(_bonus(_selm(0.3, 0.5, greedy=True), policy, world), wanted, atol=1e-15, rtol=0)


def test_the_bonus_stops_where_an_answer_has_lost_ten_nats() -> None:
    world = _bandit()[1]
    for lost, moves in ((9.5, True), (10.5, False)):
        policy = TabularPolicy(REFERENCE.log_probs().detach() - torch.tensor([[lost + 0.6, 0.0, 0.0, 0.0]]))
        ratio = (policy.log_probs() - REFERENCE.log_probs())[0, 0].item()
        assert (ratio > -10) == moves
        assert bool(_bonus(_selm(0.3, 0.5, greedy=True), policy, world).any()) == moves


def test_the_greedy_answer_explores_also_where_it_is_not_compared() -> None:
    """Neither best nor worst of the three: it is no side of the pair, and its likelihood is lowered all the same."""
    policy = _bandit()[0]
    favorite = scored_world(law(0.2, 0.2, 0.5, 0.1), 1.0, -1.0, 0.0, 0.0)
    compared = lab.mixture_gradient(get("selm").configured(addends={"optimism": 0.0}), policy, favorite)
    assert compared[2:].abs().max().item() < 1e-16
    bonus = _bonus(_selm(0.3, 0.5, greedy=True), policy, favorite)
    assert bonus[2].item() > 0
    assert bonus[[0, 1, 3]].max().item() < 0


def test_a_row_that_compares_nothing_explores_nothing() -> None:
    """Where all three answers tie; the bonus is the mean over the answers that are read."""
    both = torch.cat([LOGITS, LOGITS])
    reward = torch.tensor([[1.0, -1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    data = lab.dataset_pairs(torch.tensor([[0, 0, 1], [1, 0, 1]]), torch.ones(2, dtype=torch.float64))
    reference = TabularPolicy(REFERENCE.logits.repeat(2, 1)).frozen()
    world = TabularWorld(reference, data, lab.bradley_terry(reward), reward)
    found = _bonus(_selm(0.3, 0.5, greedy=True), TabularPolicy(both), world).view(2, 4)
    wanted = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64) - LOGITS.softmax(-1)[0]
    torch.testing.assert_close(found[0], 0.3 * 0.5 * wanted, atol=1e-15, rtol=0)
    assert not found[1].any()
    tied = replace(world, reward=torch.zeros_like(reward), preference=torch.full_like(world.preference, 0.5))
    assert not lab.mixture_gradient(_selm(0.3, 0.5, greedy=True), TabularPolicy(both), tied).any()


def test_rounds_explore_from_the_last_iterate() -> None:
    """The reference that answers greedily is the policy of the round's start."""
    policy, world = _bandit()
    method = _selm(0.3, 0.5, greedy=True).configured(staleness=1, reference=replace(get("selm").reference, steps=2))
    greedy = []

    def watched(method: Method, policy: TabularPolicy, world: TabularWorld, sampler: TabularPolicy) -> Tensor:
        greedy.append(int(world.reference.log_probs().argmax()))
        return torch.tensor([1.0, -2.0, 0.0, 0.0], dtype=torch.float64)

    starts = []
    for step in lab.train(method, policy, world, steps=6, rate=0.4, direction=watched):
        if step.number % 2 == 0:
            starts.append(int(policy.log_probs().argmax()))
    assert greedy[::2] == greedy[1::2] == [0, *starts[:2]]
    assert set(starts) == {1}
