"""Methods in rounds, on one prompt without noise: where each ends is a published or derived number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from exact_rounds import law, played, scored_world, shares, solved
from torch import Tensor

from setsail import lab
from setsail.core import Candidates, Completion, Prompt
from setsail.lab import TabularWorld, WeightedPairs
from setsail.labelers import ImplicitReward
from setsail.methods import Method, Route, get, route_loss
from setsail.objectives import GroupLogProbs
from setsail.policies import soup
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy
from setsail.reference import every, fixed

START = TabularPolicy(torch.tensor([[0.0, 0.3, 1.0]], dtype=torch.float64))
UNIFORM = TabularPolicy.uniform(prompts=1, responses=3)


def _with_beta(name: str, beta: float) -> Method:
    return get(name).configured(parameters={"beta": beta})


def _coefficient(policy: TabularPolicy, start: TabularPolicy, scores: Sequence[float]) -> float:
    """The c of ``policy = start exp(c reward) / Z``; the largest departure from that form must be rounding."""
    reward = torch.tensor(scores, dtype=torch.float64)
    gain = (policy.log_probs() - start.log_probs()).detach()[0]
    c = ((gain[-1] - gain[0]) / (reward[-1] - reward[0])).item()
    assert (gain - gain[0] - c * (reward - reward[0])).abs().max().item() < 1e-8
    return c


# Iterative DPO.


def test_a_fixed_and_a_moving_reference_end_elsewhere() -> None:
    world, method = scored_world(START, 1.0, 0.5, 0.0), _with_beta("iterative-dpo", 1.0)
    moved = played(method, START, world, 3)
    assert shares(moved[-1]) == pytest.approx((0.6961, 0.2097, 0.0942), abs=5e-5)
    assert _coefficient(moved[-1], START, (1.0, 0.5, 0.0)) == pytest.approx(3, abs=1e-9)
    for after in played(method.configured(reference=fixed()), START, world, 3):
        assert shares(after) == pytest.approx((0.3548, 0.2905, 0.3548), abs=5e-5)


def test_three_rounds_from_a_uniform_start() -> None:
    world, method = scored_world(UNIFORM, 0.0, 1.0, 2.0), _with_beta("iterative-dpo", 1.0)
    assert shares(played(method, UNIFORM, world, 3)[-1]) == pytest.approx((0.0024, 0.0473, 0.9503), abs=5e-5)
    stays = played(method.configured(reference=fixed()), UNIFORM, world, 3)[-1]
    assert shares(stays) == pytest.approx((0.0900, 0.2447, 0.6652), abs=5e-5)


def test_rounds_of_plain_gradient_steps_come_to_the_same() -> None:
    """Rounds of 100 steps: completions and reference are those of the round's start, as in training."""
    world = scored_world(START, 1.0, 0.5, 0.0)
    method = _with_beta("iterative-dpo", 1.0).configured(reference=every(100), staleness=99)
    policy = TabularPolicy(START.logits)
    for _ in lab.train(method, policy, world, steps=300, rate=8.0):
        pass
    assert shares(policy) == pytest.approx((0.6961, 0.2097, 0.0942), abs=5e-5)


@pytest.mark.parametrize(("staleness", "renewed"), [(0, [1, 2, 3, 4, 5, 6]), (2, [1, 4]), (5, [1])])
def test_completions_are_those_of_the_rounds_start(staleness: int, renewed: list[int]) -> None:
    policy, world = lab.golden_world()
    drawn_by: list[Tensor] = []

    def watched(method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy) -> Tensor:
        drawn_by.append(sampler.log_probs())
        return lab.mixture_gradient(method, policy, world, sampler=sampler)

    starts = [policy.log_probs().detach()]
    for _ in lab.train(get("online-dpo").configured(staleness=staleness), policy, world, steps=6, direction=watched):
        starts.append(policy.log_probs().detach())
    for number, law_of_draws in enumerate(drawn_by, start=1):
        assert torch.equal(law_of_draws, starts[max(first for first in renewed if first <= number) - 1])


# Acceleration.

STEEP = (0.0, 0.5, 1.0)


def test_three_accelerated_rounds() -> None:
    """3.690 after training, 4.107 once extrapolated; plain rounds 3, and 3.600 from the wrong difference."""
    world = scored_world(UNIFORM, *STEEP)
    method = _with_beta("apo-accelerated", 1.0)
    three = played(method, UNIFORM, world, 3)
    assert _coefficient(three[-1], UNIFORM, STEEP) == pytest.approx(3.690, abs=1e-9)
    assert shares(three[-1]) == pytest.approx((0.0211, 0.1336, 0.8453), abs=5e-5)
    # Before the last round, a step yields the policy already extrapolated: what becomes the reference.
    assert _coefficient(played(method, UNIFORM, world, 4)[2], UNIFORM, STEEP) == pytest.approx(4.107, abs=1e-9)
    plain = played(_with_beta("iterative-dpo", 1.0), UNIFORM, world, 3)[-1]
    assert _coefficient(plain, UNIFORM, STEEP) == pytest.approx(3, abs=1e-9)
    assert shares(plain) == pytest.approx((0.0391, 0.1753, 0.7856), abs=5e-5)


@pytest.mark.parametrize(("rounds", "speed"), [(3, 1.230), (10, 1.367), (50, 1.416)])
def test_accelerated_rounds_count_for_more(rounds: int, speed: float) -> None:
    gentle = (0.0, 0.02, 0.04)
    last = played(_with_beta("apo-accelerated", 1.0), UNIFORM, scored_world(UNIFORM, *gentle), rounds)[-1]
    found = _coefficient(last, UNIFORM, gentle) / rounds
    assert found == pytest.approx(speed, abs=5e-4)
    assert found == pytest.approx((rounds - 0.3 * (1 - 0.3**rounds) / 0.7) / 0.7 / rounds, abs=1e-6)


def test_without_momentum_acceleration_is_iterative_dpo_bit_for_bit() -> None:
    runs = []
    for method in (get("apo-accelerated").configured(reference=every(16)), get("iterative-dpo")):
        policy, world = lab.token_world()
        runs.append(
            [(step.gradient, policy.logits.detach().clone()) for step in lab.train(method, policy, world, steps=40)]
        )
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


# Self-play against the data set.


def _demonstrations(target: TabularPolicy, reference: TabularPolicy) -> TabularWorld:
    """A data set whose chosen answers have the law of ``target``; its rejected ones are not read."""
    answers = torch.arange(3)
    weight = target.log_probs().detach().exp()[0]
    pairs = WeightedPairs(torch.zeros_like(answers), answers, answers.flip(0), weight, torch.ones_like(weight))
    return TabularWorld(reference.frozen(), pairs, torch.full((1, 3, 3), 0.5, dtype=torch.float64))


TARGET = law(0.2, 0.7, 0.1)


def test_self_play_reaches_the_data_in_one_round() -> None:
    [reached] = played(_with_beta("spin", 1.0), START, _demonstrations(TARGET, START), 1)
    assert shares(reached) == pytest.approx(shares(TARGET), abs=1e-12)


def test_a_larger_beta_goes_a_part_of_the_way_from_where_the_round_began() -> None:
    """``pi_t (p_data / pi_t)^(1/beta)``, round after round: the reference is the last iterate, not the start."""
    rounds = played(_with_beta("spin", 3.0), START, _demonstrations(TARGET, START), 3)
    before = START.log_probs()
    for after in rounds:
        wanted = (before + (TARGET.log_probs() - before) / 3).log_softmax(-1)
        torch.testing.assert_close(after.log_probs(), wanted, atol=1e-10, rtol=0)
        before = wanted


def test_self_play_rests_at_the_data() -> None:
    slope = lab.mixture_gradient(get("spin"), TabularPolicy(TARGET.logits), _demonstrations(TARGET, TARGET))
    assert slope.abs().max().item() < 1e-16


# Labels from what the last round taught.


def test_half_of_the_rows_are_offline_pairs() -> None:
    assert get("dice").offline_weight == 0.5


def test_implicit_labels_compare_the_last_round_with_the_one_before() -> None:
    """Not with the start: the opponent is what the reference was one round ago."""
    policy, world = lab.golden_world()
    method = get("dice").configured(generations=3, reference=every(2), staleness=1)
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy) -> Tensor:
        assert world.opponent is not None
        seen.append((world.reference.log_probs(), world.opponent.log_probs()))
        return lab.mixture_gradient(method, policy, world, sampler=sampler)

    after = [policy.log_probs().detach()]
    for step in lab.train(method, policy, world, steps=8, direction=watched, rate=20.0):
        if step.number % 2 == 0:
            after.append(policy.log_probs().detach())
    starts = [world.reference.log_probs(), world.reference.log_probs(), *after[1:]]
    for number, (reference, opponent) in enumerate(seen):
        assert torch.equal(opponent, starts[number // 2])
        assert torch.equal(reference, starts[number // 2 + 1])


def test_without_offline_pairs_it_is_iteration_on_the_implicit_reward() -> None:
    """Best against worst by ``log pi_t - log pi_{t-1}``, as if a labeler had given that score."""
    policy, world = lab.golden_world()
    opponent = TabularPolicy(torch.tensor([[0.2, -0.6, 0.4]])).frozen()
    route = replace(get("dice").routes[0], weight=1.0)
    dice = get("dice").with_parts(offline=False, routes=(route,)).configured(generations=3)
    taught = (world.reference.log_probs() - opponent.log_probs()).detach()
    scored = replace(world, reward=taught, preference=lab.bradley_terry(taught))
    labeled = lab.mixture_gradient(get("rlhf-workflow").configured(generations=3), policy, scored)
    torch.testing.assert_close(
        lab.mixture_gradient(dice, policy, replace(world, opponent=opponent)), labeled, atol=1e-15, rtol=0
    )
    assert labeled.abs().max().item() > 1e-3


def _answers(rewards: list[float], lengths: list[int]) -> tuple[Candidates, list[float]]:
    completions = tuple(Completion(token_ids=(1,) * length, text="") for length in lengths)
    return Candidates(prompt=Prompt(row_id=0, text="", token_ids=(1,)), completions=completions), rewards


def test_the_prompts_constant_of_an_implicit_reward_means_nothing_and_its_scale_does() -> None:
    """A length penalty is in nats a token of the unscaled log-ratio."""

    def labels(scale: float = 1.0, constants: tuple[float, float] = (0.0, 0.0)) -> list[object]:
        given = [_answers([0.55, 0.0, 0.25], [50, 2, 20]), _answers([0.3, 0.2, 0.9], [30, 9, 60])]
        rewards = [[scale * (r + constant) for r in each] for (_, each), constant in zip(given, constants, strict=True)]
        labeler = ImplicitReward(lambda _: rewards, length_calibrated=True)
        return [
            [[round(p or 0, 9) for p in row] for row in one.preference] for one in labeler.label([c for c, _ in given])
        ]

    assert labels() == labels(constants=(3.0, -7.0))
    assert labels() != labels(scale=0.1)


# Imitation.

QUARTER = law(0.4, 0.3, 0.2, 0.1)


def _imitated(method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy) -> Tensor:
    """The step to the law that the method imitates: the gradient of the likelihood in logits is ``pi - law``."""
    assert isinstance(policy, TabularPolicy)
    kept = policy.log_probs().detach().exp()[0] - lab.mixture_gradient(method, policy, world, sampler=sampler)
    return (policy.logits[0] - kept.clamp(min=1e-40).log()).detach()


def test_rounds_of_imitating_the_best_of_four_are_the_best_of_more() -> None:
    world = scored_world(QUARTER, 0.0, 1.0, 2.0, 3.0)
    method = get("raft").configured(generations=4, parameters={"length_normalize": False})
    one, _, three = played(method, QUARTER, world, 3, direction=_imitated)
    assert shares(one) == pytest.approx((0.0256, 0.2145, 0.4160, 0.3439), abs=1e-12)
    assert lab.reverse_kl(one, QUARTER).item() == pytest.approx(0.58711, abs=5e-6)
    assert shares(three) == pytest.approx(shares(lab.best_of_n_policy(QUARTER, world.reward, 64)), abs=1e-12)
    assert shares(three) == pytest.approx((0.0, 1.2198e-10, 1.17902e-3, 0.998821), abs=5e-7)
    # Newton's method, which knows nothing of the likelihood, finds the same.
    torch.testing.assert_close(played(method, QUARTER, world, 1)[0].log_probs(), one.log_probs(), atol=1e-9, rtol=0)


def test_only_the_order_of_the_scores_counts_and_equal_scores_share() -> None:
    method = get("raft").configured(generations=4, parameters={"length_normalize": False})
    for reward in ((0.0, 1.0, 2.0, 3.0), (-5.0, 0.1, 0.2, 40.0), (0.0, 1.0, 1.0, 3.0), (0.0, 0.0, 0.0, 0.0)):
        world = scored_world(QUARTER, *reward)
        [found] = played(method, QUARTER, world, 1, direction=_imitated)
        assert shares(found) == pytest.approx(shares(lab.best_of_n_policy(QUARTER, world.reward, 4)), abs=1e-12)


def test_imitation_with_a_penalty_mixes_the_winner_into_the_start() -> None:
    """``(one-hot + 0.35 p0) / 1.35``; the reverse KL would end elsewhere."""
    world, certain = scored_world(QUARTER, 0.0, 1.0, 2.0, 3.0), law(1e-30, 1e-30, 1.0, 1e-30)
    start = TabularPolicy(QUARTER.logits)
    step = solved(get("superhf").configured(generations=1), start, world, certain)
    found = TabularPolicy(start.logits - step)
    assert shares(found) == pytest.approx((0.1037, 0.0778, 0.7926, 0.0259), abs=5e-5)


def test_without_its_penalty_superhf_is_raft_without_rounds() -> None:
    policy, world = lab.token_world()
    free = get("superhf").configured(generations=2, addends={"token_forward_kl": 0.0})
    raft = get("raft").configured(generations=2, staleness=0)
    assert torch.equal(*(lab.mixture_gradient(method, policy, world) for method in (free, raft)))


# Selected pairs of the starting policy.


def test_selected_pairs_are_the_references_whatever_the_policy_has_become() -> None:
    policy, world = lab.golden_world()
    method = get("rs-dpo").configured(generations=3)
    given = [lab.mixture_gradient(method, policy, world, sampler=sampler) for sampler in (UNIFORM, START, None)]
    assert torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2])
    # Where nothing wins clearly there is nothing to learn.
    narrow = replace(world, preference=0.5 + 0.6 * (world.preference - 0.5))
    assert not lab.mixture_gradient(method, policy, narrow).any()


# A soup as the reference.


@pytest.mark.parametrize(
    ("share", "blended", "value"),
    [(0.5, (0.350675, 0.324662, 0.324662), 0.667283), (0.0, (0.7, 0.2, 0.1), 0.880306)],
)
def test_training_toward_a_soup(share: float, blended: tuple[float, ...], value: float) -> None:
    first, second = law(0.7, 0.2, 0.1), law(0.1, 0.3, 0.6)
    reference = TabularPolicy(first.logits)
    reference.load_state_dict(soup([first, second], [1 - share, share]))
    assert shares(reference) == pytest.approx(blended, abs=1e-6)
    method = get("salsa").with_parts(soup_share=share).configured(parameters={"beta": 0.5})
    world, policy = scored_world(reference, 1.0, 0.5, 0.0), TabularPolicy(first.logits)
    assert lab.reverse_kl(policy, reference).item() == pytest.approx(0.269198 if share else 0.0, abs=1e-6)
    for _ in lab.train(method, policy, world, steps=400, rate=20.0):
        pass
    reached = lab.expected_reward(policy, torch.tensor([[1.0, 0.5, 0.0]])) - 0.5 * lab.reverse_kl(policy, reference)
    assert reached.item() == pytest.approx(value, abs=1e-6)
    assert value == pytest.approx(
        0.5 * math.log(sum(q * math.exp(2 * r) for q, r in zip(blended, (1, 0.5, 0), strict=True))), abs=1e-6
    )
    if share:
        assert shares(policy) == pytest.approx((0.682181, 0.232344, 0.085475), abs=1e-6)


# Fresh pairs and a judge.


def test_the_same_answer_twice_teaches_nothing() -> None:
    logps = torch.tensor([[-3.0, -3.0]], dtype=torch.float64, requires_grad=True)
    same = GroupLogProbs(torch.stack([logps[0, 0], logps[0, 0]])[None], torch.full((1, 2), -2.0, dtype=torch.float64))
    for name in ("oaif", "oaif-ipo", "oaif-slic"):
        method = get(name)
        loss = route_loss(method, method.routes[0], same, torch.tensor([0.5], dtype=torch.float64)).surrogate
        (slope,) = torch.autograd.grad(loss.sum(), logps, retain_graph=True)
        assert not slope.any()


def test_a_judged_pair_is_learnt_from_as_an_offline_pair_with_a_soft_label() -> None:
    policy, world = lab.token_world()
    logps = world.data.log_probs(policy, world.reference).group()

    def loss(name: str, route: Route | None) -> Tensor:
        return route_loss(get(name), route, logps, world.data.p).surrogate

    judged = loss("oaif", get("oaif").routes[0])
    assert torch.equal(judged, loss("dpo", None))
    assert torch.equal(judged, loss("sail-dpr", get("sail-dpr").routes[0]))
