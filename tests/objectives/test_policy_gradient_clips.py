"""What clipping does to the surrogates of GRPO and P3O: a ratio beyond the range moves only back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from setsail.objectives import GroupLogProbs, grpo, p3o


def _clipped(
    objective: Callable[..., Tensor], ratios: tuple[float, float], rewards: tuple[float, float], **arguments: object
) -> list[float]:
    """Gradient in the two log-probs of one group whose importance ratios are given; clip .2, no KL."""
    policy = torch.tensor([ratios], dtype=torch.float64).log().requires_grad_()
    old, values = torch.zeros_like(policy), torch.tensor([rewards], dtype=torch.float64)
    loss = objective(GroupLogProbs(policy, old), values, old_policy=old, beta=0.0, **arguments)
    return [float(slope) for slope in torch.autograd.grad(loss.sum(), policy)[0][0]]


@pytest.mark.parametrize(
    ("ratios", "rewards", "moves"),
    [
        ((1.1, 0.9), (1.0, 0.0), (True, True)),
        ((1.3, 0.9), (1.0, 0.0), (False, True)),
        ((1.1, 0.7), (1.0, 0.0), (True, False)),
        ((1.3, 0.7), (1.0, 0.0), (False, False)),
        ((0.7, 1.3), (1.0, 0.0), (True, True)),
        ((1.3, 0.7), (0.0, 1.0), (True, True)),
    ],
)
@pytest.mark.parametrize("objective", [p3o, grpo])
def test_a_ratio_beyond_the_clip_moves_only_back(
    objective: Callable[..., Tensor],
    ratios: tuple[float, float],
    rewards: tuple[float, float],
    moves: tuple[bool, bool],
) -> None:
    slopes = _clipped(objective, ratios, rewards)
    lead = rewards[0] - rewards[1]
    if objective is p3o:
        whole = lead * ratios[0] * ratios[1] / 2
        wanted = [-whole, whole]
    else:
        advantage = lead / 2 / (1 / math.sqrt(2) + 1e-4)
        wanted = [-advantage * ratios[0] / 2, advantage * ratios[1] / 2]
    assert slopes == pytest.approx([slope if moved else 0.0 for slope, moved in zip(wanted, moves, strict=True)])


@pytest.mark.parametrize(
    ("ratios", "rewards", "moves"),
    [
        ((1.05, 0.95), (1.0, 0.0), True),
        ((1.1, 0.912), (1.0, 0.0), False),  # log 1.2 < .1874 < .2
        ((1.15, 0.9), (1.0, 0.0), False),
        ((0.7, 1.3), (1.0, 0.0), True),
        ((1.3, 0.7), (0.0, 1.0), True),
        ((0.7, 1.3), (0.0, 1.0), False),
        ((1.5, 1.5), (1.0, 0.0), True),
    ],
)
def test_joint_clipping_looks_at_the_difference_of_the_log_ratios(
    ratios: tuple[float, float], rewards: tuple[float, float], moves: bool
) -> None:
    whole = (rewards[0] - rewards[1]) * ratios[0] * ratios[1] / 2 * moves
    assert _clipped(p3o, ratios, rewards, joint=True) == pytest.approx([-whole, whole])
