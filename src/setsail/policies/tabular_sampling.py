"""What an enumerable policy draws from when sampling is reshaped, or mixed with another policy.

The same words as for a language model: temperature and top-k act on next-token log-probs, a mixture is taken token by
token. A response of a softmax policy is a single token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.core import Sampling
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy, TabularTokenPolicy


def mixture(policy: EnumerablePolicy, reference: EnumerablePolicy, share: float) -> EnumerablePolicy:
    """``(1 - share) log pi + share log pi_ref`` of the next token, renormalized; a new policy without gradient.

    Raises:
        ValueError: a token policy is mixed with one that is not.

    >>> even, sure = TabularPolicy.uniform(1, 2), TabularPolicy(torch.tensor([[0.0, 2.0]]))
    >>> [round(chance, 4) for chance in mixture(even, sure, 0.5).log_probs().exp()[0].tolist()]
    [0.2689, 0.7311]
    """
    tables = [_next_token(each) for each in (policy, reference)]
    if tables[0].shape != tables[1].shape:
        raise ValueError(
            f"only policies over the same tokens can be mixed, got tables of {tuple(tables[0].shape)} and "
            f"{tuple(tables[1].shape)}"
        )
    return _like(policy, (1 - share) * tables[0] + share * tables[1])


def reshaped(policy: EnumerablePolicy, sampling: Sampling) -> EnumerablePolicy:
    """What a sampler with these settings draws from: temperature, then top-k; the policy itself where both are neutral.

    Raises:
        ValueError: settings beyond temperature and top-k.

    >>> greedy = Sampling(top_k=1)
    >>> reshaped(TabularPolicy(torch.tensor([[0.0, 2.0]])), greedy).log_probs().exp()[0].tolist()
    [0.0, 1.0]
    """
    neutral = Sampling(
        max_completion_length=sampling.max_completion_length,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
    )
    if sampling != neutral:
        raise ValueError(f"an enumerable policy knows temperature and top_k only, got {sampling}")
    if sampling.is_policy:
        return policy
    table = _next_token(policy) / sampling.temperature
    if 0 < sampling.top_k < table.shape[-1]:
        kth = table.topk(sampling.top_k, dim=-1).values[..., -1:]
        table = torch.where(table >= kth, table, -torch.inf)
    return _like(policy, table)


def next_token_log_probs(policy: EnumerablePolicy) -> Tensor:
    """``log pi(token|x, prefix)``, shape ``(prompts, prefixes, vocabulary)``, nats, with gradient.

    A response of a policy that is not over tokens is its only token, drawn after the empty prefix.

    >>> next_token_log_probs(TabularPolicy.uniform(prompts=2, responses=5)).shape
    torch.Size([2, 1, 5])
    """
    return policy.next_token_log_probs() if isinstance(policy, TabularTokenPolicy) else policy.log_probs().unsqueeze(1)


def visits(policy: EnumerablePolicy) -> Tensor:
    """The share of each response's tokens that are drawn after each prefix, shape ``(responses, prefixes)``.

    Rows sum to 1: with it, values at prefixes become means over the tokens of responses.

    >>> visits(TabularTokenPolicy.uniform(prompts=1, vocabulary=2, max_length=2)).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]
    """
    if not isinstance(policy, TabularTokenPolicy):
        return torch.ones(policy.log_probs().shape[1], 1, dtype=torch.float64)
    row = {prefix: index for index, prefix in enumerate(policy.prefixes())}
    table = torch.zeros(len(policy.sequences()), len(row), dtype=torch.float64)
    for response, sequence in enumerate(policy.sequences()):
        for position in range(len(sequence)):
            table[response, row[sequence[:position]]] = 1 / len(sequence)
    return table


def _next_token(policy: EnumerablePolicy) -> Tensor:
    """What is reshaped and mixed: a table of the parameters' own shape."""
    if isinstance(policy, TabularTokenPolicy):
        return policy.next_token_log_probs().detach()
    return policy.log_probs().detach()


def _like(policy: EnumerablePolicy, table: Tensor) -> EnumerablePolicy:
    if isinstance(policy, TabularTokenPolicy):
        made: EnumerablePolicy = TabularTokenPolicy(table, policy.max_length, policy.eos)
    else:
        made = TabularPolicy(table)
    return made.requires_grad_(False)
