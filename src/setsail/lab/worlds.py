"""Small worlds whose numbers are known: a policy, and what it trains on."""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.core import stream
from setsail.lab.groups import TabularWorld
from setsail.lab.pairs import bradley_terry, dataset_pairs
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy, TabularTokenPolicy


def golden_world() -> tuple[TabularPolicy, TabularWorld]:
    """One prompt and three responses; at beta 0.5 its objectives and gradients are known to ten digits.

    Logits (0.3, -0.2, 0.1), reference logits (0, 0.5, -0.4), rewards (0, 1, -1), Bradley-Terry preferences. The data
    set holds the three distinct pairs.
    """
    reward = torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64)
    reference = TabularPolicy(torch.tensor([[0.0, 0.5, -0.4]], dtype=torch.float64)).frozen()
    policy = TabularPolicy(torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64))
    return policy, _world(reference, reward, torch.tensor([[0, 0, 1], [0, 0, 2], [0, 1, 2]]))


def six_responses() -> tuple[TabularPolicy, TabularWorld, Tensor]:
    """One prompt, six responses of reward 0, 0.5, ..., 2.5, a uniform reference, and a policy that starts there.

    The data set holds every ordered pair once. At beta 1 the optimum of each objective is known; maximizing SAIL's
    upper-level objective and solving RLHF give different policies here.

    Returns:
        Policy, world, and the rewards of shape ``(1, 6)``.
    """
    reward = 0.5 * torch.arange(6, dtype=torch.float64).unsqueeze(0)
    policy = TabularPolicy.uniform(prompts=1, responses=6)
    indices = torch.arange(6)
    rows = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), indices, indices)
    return policy, _world(policy.frozen(), reward, rows), reward


def token_world(seed: int = 0) -> tuple[TabularTokenPolicy, TabularWorld]:
    """Two prompts, three tokens (one of them EOS), answers of at most three tokens: 15 responses a prompt.

    Policy, reference and rewards are normal draws from a named stream; the data set holds four pairs a prompt, with
    preferences 1, 0.7, 0.5 and 0 in turn.
    """
    numbers = stream(seed, "lab", "token-world")
    logits = torch.from_numpy(numbers.normal(size=(2, 2, 7, 3)))
    policy, reference = TabularTokenPolicy(logits[0], max_length=3), TabularTokenPolicy(logits[1], max_length=3)
    responses = len(policy.sequences())
    reward = torch.from_numpy(numbers.normal(size=(2, responses)))
    rows = [(prompt, *numbers.choice(responses, size=2, replace=False)) for prompt in (0, 1) for _ in range(4)]
    p = torch.tensor([1.0, 0.7, 0.5, 0.0] * 2, dtype=torch.float64)
    data = dataset_pairs(torch.tensor([[int(index) for index in row] for row in rows]), p)
    return policy, TabularWorld(reference.frozen(), data, bradley_terry(reward), reward)


def _world(reference: EnumerablePolicy, reward: Tensor, rows: Tensor) -> TabularWorld:
    preference = bradley_terry(reward)
    prompt, first, second = rows.unbind(-1)
    return TabularWorld(reference, dataset_pairs(rows, preference[prompt, first, second]), preference, reward)
