"""The mean reward of a policy's answers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from setsail.core import DataError
from setsail.evaluation.bootstrap import bootstrap_mean
from setsail.evaluation.intervals import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanReward:
    """Mean reward of the answers that have one, with its bootstrap interval.

    Attributes:
        reward: the mean, in the reward's unit.
        missing: answers without a reward; they count nowhere else.
    """

    reward: Interval
    missing: int


def mean_reward(
    rewards: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> MeanReward:
    """The mean reward; a reward that is missing is counted and left out, never taken for a low one.

    Args:
        rewards: of the answers; None or NaN is missing.
        clusters: what answers share, such as the prompt's row id, for several answers a prompt.
        confidence: two-sided, in (0, 1).
        seed: of the bootstrap's stream.

    Raises:
        DataError: no reward at all, an infinite one, or another number of clusters than of rewards.
        ConfigError: ``confidence`` outside (0, 1).

    >>> found = mean_reward([0.2, None, 0.6, 0.4])
    >>> round(found.reward.estimate, 3), found.missing
    (0.4, 1)
    """
    if clusters is not None and len(clusters) != len(rewards):
        raise DataError(f"{len(clusters)} clusters for {len(rewards)} rewards: give the cluster of each answer")
    known = [(i, float(reward)) for i, reward in enumerate(rewards) if reward is not None and not math.isnan(reward)]
    if not known:
        raise DataError(f"none of {len(rewards)} answers has a reward, so there is no mean")
    groups = None if clusters is None else [clusters[i] for i, _ in known]
    reward = bootstrap_mean([value for _, value in known], clusters=groups, confidence=confidence, seed=seed)
    return MeanReward(reward=reward, missing=len(rewards) - len(known))
