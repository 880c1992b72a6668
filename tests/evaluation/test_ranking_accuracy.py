"""Which completion the policy finds likelier: the accuracy, its ideal, and the loss that it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from setsail.core import ConfigError, DataError, stream
from setsail.evaluation import (
    idealized_ranking_accuracy,
    needed_loss,
    ranking_accuracy,
    reward_accuracy,
    wilson,
)
from setsail.objectives import LogProbs, dpo


def test_by_hand() -> None:
    """Sums: right, wrong, tie, right. A token: -2 and -3; -1.5 and -2; -5 and -2.5; -3 and -1."""
    found = ranking_accuracy(
        [-12.0, -30.0, -10.0, -3.0],
        [-15.0, -20.0, -10.0, -4.0],
        chosen_lengths=[6, 20, 2, 1],
        rejected_lengths=[5, 10, 4, 4],
    )
    assert found.raw == wilson(3, 4)
    assert found.per_token == wilson(2, 4)
    assert found.ties == 1


def test_it_is_not_the_accuracy_of_margins() -> None:
    """Every margin against the reference has risen, and every pair is still ranked wrongly."""
    reference_chosen, reference_rejected = np.full(20, -60.0), np.full(20, -40.0)
    chosen, rejected = reference_chosen + 1, reference_rejected - 1
    assert ranking_accuracy(chosen, rejected).raw.estimate == 0.0
    assert reward_accuracy(chosen - reference_chosen, rejected - reference_rejected).estimate == 1.0


def test_pairs_of_one_prompt_share_an_interval() -> None:
    chosen, rejected = np.repeat([0.0, -1.0, 0.0, 0.0, -1.0], 6), np.full(30, -0.5)
    alone = ranking_accuracy(chosen, rejected).raw
    together = ranking_accuracy(chosen, rejected, clusters=np.repeat(range(5), 6).tolist()).raw
    assert together.estimate == alone.estimate == 0.6
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_a_pair_is_ranked_right_exactly_where_its_loss_is_down_to_what_it_takes(beta: float) -> None:
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = stream(0, "pairs").normal(size=(4, 5000)) * 3
    logps = LogProbs(*map(torch.from_numpy, (policy_chosen, policy_rejected, reference_chosen, reference_rejected)))
    loss = dpo(logps, beta=beta).numpy()
    low_enough = loss <= needed_loss(reference_chosen, reference_rejected, beta)
    assert np.array_equal(low_enough, policy_chosen >= policy_rejected)
    assert low_enough.mean() == ranking_accuracy(policy_chosen, policy_rejected).raw.estimate


def test_what_a_wrong_reference_takes() -> None:
    """log 2 where the reference is even, more where it is right, and less the further it is wrong."""
    found = needed_loss([-50.0, -50.0, -55.0, -80.0], [-50.0, -60.0, -50.0, -50.0], beta=0.1)
    assert found.tolist() == pytest.approx([math.log(2), 1.313262, 0.474077, 0.048587], abs=1e-6)


# The ideal.


def _pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = stream(0, "ideal")
    mine, theirs = 5 * generator.normal(size=(2, 1000))
    return mine, theirs, generator.random(1000)


def test_the_ideal_is_the_reference_for_large_beta_and_the_annotators_for_small() -> None:
    mine, theirs, p = _pairs()
    reference = ranking_accuracy(mine, theirs).raw.estimate
    assert idealized_ranking_accuracy(mine, theirs, p, beta=1e6) == reference
    assert idealized_ranking_accuracy(mine, theirs, p, beta=1e-6) == (p > 0.5).mean()
    assert idealized_ranking_accuracy(mine, theirs, 0.5, beta=1.0) == reference


def test_the_ideal_is_the_ranking_of_the_optimal_policy() -> None:
    """Three completions, Bradley-Terry preferences of known rewards: ``pi* ~ pi_ref exp(r / beta)``, enumerated."""
    generator, beta = stream(0, "optimum"), 0.7
    for _ in range(50):
        reference, reward = generator.normal(size=3) * 2, generator.normal(size=3)
        optimum = reference + reward / beta
        pairs = [(0, 1), (1, 2), (2, 0)]
        chosen, rejected = [first for first, _ in pairs], [second for _, second in pairs]
        p = 1 / (1 + np.exp(reward[rejected] - reward[chosen]))
        ideal = idealized_ranking_accuracy(reference[chosen], reference[rejected], p, beta)
        assert ideal == ranking_accuracy(optimum[chosen], optimum[rejected]).raw.estimate


def test_a_beta_of_a_tenth_and_three_quarters_of_the_annotators_move_eleven_nats() -> None:
    """logit(0.75) / 0.1 = 10.986."""
    assert idealized_ranking_accuracy([-60.98], [-50.0], 0.75, beta=0.1) == 1.0
    assert idealized_ranking_accuracy([-60.99], [-50.0], 0.75, beta=0.1) == 0.0
    assert idealized_ranking_accuracy([-1e9, -1e9], [0.0, 0.0], [1.0, 0.0], beta=0.1) == 0.5


# Rewards.


def test_equal_rewards_count_one_half() -> None:
    """A log-ratio table that has learnt one pair of tokens tells nothing about others: margins of exactly 0."""
    assert reward_accuracy([1.0, 0.0, 0.0], [0.0, 0.0, 0.0]).estimate == pytest.approx(2 / 3)
    assert reward_accuracy([0.0] * 10, [0.0] * 10).estimate == 0.5
    scaled = reward_accuracy([0.3, -0.2, 0.1], [0.1, 0.4, 0.0])
    assert reward_accuracy([3.0, -2.0, 1.0], [1.0, 4.0, 0.0]) == scaled


# Refusals.


def test_what_are_no_pairs() -> None:
    with pytest.raises(DataError, match="2 chosen, 1 rejected: give one of each a pair"):
        ranking_accuracy([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="at least one"):
        ranking_accuracy([], [])
    with pytest.raises(DataError, match="lengths of one side only"):
        ranking_accuracy([1.0], [2.0], chosen_lengths=[3])
    with pytest.raises(DataError, match="a length of 0 tokens"):
        ranking_accuracy([1.0], [2.0], chosen_lengths=[3], rejected_lengths=[0])
    with pytest.raises(DataError, match=r"p between 0.2 and 1.2: it is a share of annotators, in \[0, 1\]"):
        idealized_ranking_accuracy([1.0, 1.0], [2.0, 2.0], [0.2, 1.2], beta=1.0)
    with pytest.raises(ConfigError, match=r"beta=0.0: it must be positive"):
        needed_loss([1.0], [2.0], beta=0.0)
