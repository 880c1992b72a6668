"""Mean rewards with what is missing, and agreement on classes."""

from __future__ import annotations

import math

import pytest

from setsail.core import DataError
from setsail.evaluation import bootstrap_mean, macro_f1, mean_reward


def test_missing_rewards_are_counted_and_left_out() -> None:
    found = mean_reward([0.5, None, 1.5, math.nan, 4.0], seed=3)
    assert found.missing == 2
    assert found.reward == bootstrap_mean([0.5, 1.5, 4.0], seed=3)
    assert found.reward.estimate == 2.0


def test_answers_of_one_prompt_are_resampled_together() -> None:
    rewards = [1.0, 1.2, None, 3.0, 3.1, 2.9, 0.1, 0.2, 0.3]
    clusters = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    found = mean_reward(rewards, clusters=clusters)
    kept = [reward for reward in rewards if reward is not None]
    assert found.reward == bootstrap_mean(kept, clusters=[0, 0, 1, 1, 1, 2, 2, 2])


def test_no_reward_no_mean() -> None:
    with pytest.raises(DataError, match="none of 2 answers has a reward"):
        mean_reward([None, math.nan])
    with pytest.raises(DataError, match="1 clusters for 2 rewards"):
        mean_reward([1.0, 2.0], clusters=["a"])
    with pytest.raises(DataError, match="value 1 is inf"):
        mean_reward([1.0, math.inf])


def test_macro_f1_averages_over_every_class() -> None:
    """F1 of a, b, c: 2/3, 4/5, 1; without the first it would be 0.9."""
    assert macro_f1(list("aabbc"), list("abbbc")) == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)
    assert macro_f1(["", "", "x", "x", "y"], ["", "x", "x", "x", "y"]) == pytest.approx(0.822222, abs=1e-6)


def test_classes_of_one_side_alone_count_as_0() -> None:
    assert macro_f1(["a", "a"], ["a", None]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1(["a", "b"], ["a", "a"]) == pytest.approx((2 / 3 + 0) / 2)
    with pytest.raises(DataError, match="2 labels and 1 predictions"):
        macro_f1(["a", "b"], ["a"])
