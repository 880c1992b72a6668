"""Policies small enough to enumerate: every response of every prompt has its log-prob in one table.

They are real policies (torch modules with parameters and gradients), so the objectives that train a language model
run on them unchanged, in float64, and expectations over completions are plain sums.

Axis legend: ``prompts`` N, ``responses`` R, ``prefixes``, ``vocabulary`` V, ``parameters``. Log-probs in nats.

    >>> reference = TabularPolicy.uniform(prompts=1, responses=3)
    >>> policy = TabularPolicy(torch.tensor([[0.3, -0.2, 0.1]]))
    >>> logps = policy.pair_log_probs(reference, torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    >>> round(logps.log_ratio_difference().item(), 6)
    0.5
"""

from __future__ import annotations

import copy
from itertools import product
from typing import Self

import torch
from torch import Tensor, nn

from setsail.objectives import LogProbs


class EnumerablePolicy(nn.Module):
    """A policy whose responses can all be listed. Subclasses give :meth:`log_probs`; the rest follows from it."""

    def log_probs(self) -> Tensor:
        """``log pi(y|x)`` of every response, shape ``(prompts, responses)``, nats, with gradient; rows sum to 1."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        """The same as :meth:`log_probs`."""
        return self.log_probs()

    def lengths(self) -> Tensor:
        """Number of tokens of each response, shape ``(responses,)``; a response without tokens inside counts as one."""
        return torch.ones(self.log_probs().shape[1], dtype=torch.int64)

    def logps(self, prompt: Tensor, response: Tensor) -> Tensor:
        """``log pi(y|x)`` of the given responses, of the shape of the two index tensors, with gradient."""
        return self.log_probs()[prompt, response]

    def sample(self, prompt: Tensor, uniforms: Tensor) -> Tensor:
        """Draw responses by inverting the cumulative distribution: each uniform gives one independent draw.

        Args:
            prompt: index of each prompt, shape ``(k,)``.
            uniforms: numbers in [0, 1), shape ``(k, n)``, for example from :func:`setsail.core.uniforms`.

        Returns:
            Response indices, shape ``(k, n)``.

        Raises:
            ValueError: the shapes do not fit.

        >>> TabularPolicy.uniform(prompts=1, responses=4).sample(torch.tensor([0]), torch.tensor([[0.1, 0.6]])).tolist()
        [[0, 2]]
        """
        if prompt.dim() != 1 or uniforms.dim() != 2 or uniforms.shape[0] != prompt.shape[0]:
            raise ValueError(
                f"one row of uniforms a prompt is needed: prompt (k,) and uniforms (k, n), "
                f"got {tuple(prompt.shape)} and {tuple(uniforms.shape)}"
            )
        table = self.log_probs().detach().exp().cumsum(-1)[prompt]
        drawn = torch.searchsorted(table, uniforms.to(table.dtype).contiguous(), right=True)
        # The last cumulative probability may fall short of 1 by rounding; a uniform above it draws the last response.
        return drawn.clamp(max=table.shape[1] - 1)

    def pair_log_probs(self, reference: EnumerablePolicy, prompt: Tensor, first: Tensor, second: Tensor) -> LogProbs:
        """The record that objectives read, for pairs given by index.

        Args:
            reference: the reference policy, over the same prompts and responses; no gradient flows into it.
            prompt, first, second: indices, each of shape ``(pairs,)``.
        """
        table, lengths = self.log_probs(), self.lengths()
        frozen = reference.log_probs().detach()
        return LogProbs(
            table[prompt, first],
            table[prompt, second],
            frozen[prompt, first],
            frozen[prompt, second],
            lengths[first],
            lengths[second],
        )

    def frozen(self) -> Self:
        """A copy of the policy as it is now that takes no gradient: a reference, or yesterday's sampler."""
        return copy.deepcopy(self).requires_grad_(False)


class TabularPolicy(EnumerablePolicy):
    """A softmax over R responses for each of N prompts: ``pi(y|x) = exp(logits[x, y]) / sum_y' exp(logits[x, y'])``.

    Args:
        logits: starting logits, shape ``(prompts, responses)``; kept as a float64 parameter.

    Raises:
        ValueError: logits are not two-dimensional.

    >>> TabularPolicy.uniform(prompts=2, responses=4).log_probs().exp()[0].tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        if logits.dim() != 2:
            raise ValueError(f"logits must have shape (prompts, responses), got {tuple(logits.shape)}")
        self.logits = nn.Parameter(logits.detach().to(torch.float64, copy=True))

    @classmethod
    def uniform(cls, prompts: int, responses: int) -> TabularPolicy:
        """The policy that finds every response equally likely."""
        return cls(torch.zeros(prompts, responses, dtype=torch.float64))

    def log_probs(self) -> Tensor:
        """``log_softmax(logits)``, shape ``(prompts, responses)``."""
        return self.logits.log_softmax(-1)


class LogLinearPolicy(EnumerablePolicy):
    """``pi(y|x)`` proportional to ``exp(weights . features[x, y])``.

    The Hessian of ``KL(pi_ref || pi)`` in the weights is the Fisher matrix ``Cov_pi(features)``, whatever the
    reference; convergence results for self-improving alignment assume this form (arXiv 2606.31524, 2602.20457).

    Args:
        features: shape ``(prompts, responses, features)``; a fixed buffer.
        weights: starting weights, shape ``(features,)``; None = zeros.

    Raises:
        ValueError: the shapes do not fit.

    >>> LogLinearPolicy(torch.eye(2)[None], torch.tensor([1.0, 1.0])).log_probs().exp().tolist()
    [[0.5, 0.5]]
    """

    features: Tensor

    def __init__(self, features: Tensor, weights: Tensor | None = None) -> None:
        super().__init__()
        if features.dim() != 3:
            raise ValueError(f"features must have shape (prompts, responses, features), got {tuple(features.shape)}")
        weights = torch.zeros(features.shape[-1]) if weights is None else weights
        if weights.shape != features.shape[-1:]:
            raise ValueError(
                f"one weight a feature is needed, shape {tuple(features.shape[-1:])}, got {tuple(weights.shape)}"
            )
        self.register_buffer("features", features.detach().to(torch.float64, copy=True))
        self.weights = nn.Parameter(weights.detach().to(torch.float64, copy=True))

    def log_probs(self) -> Tensor:
        """``log_softmax(features @ weights)``, shape ``(prompts, responses)``."""
        return (self.features @ self.weights).log_softmax(-1)


class TabularTokenPolicy(EnumerablePolicy):
    """An auto-regressive policy over a small vocabulary, with one row of logits for each prompt and prefix.

        log pi(y|x) = sum_t log softmax(logits[x, prefix y_<t])[y_t]

    A response ends with EOS, or is cut after ``max_length`` tokens without one; both kinds are enumerated, so the
    probabilities sum to 1. The EOS counts toward the log-prob and the length if and only if it was sampled.

    Args:
        logits: starting logits, shape ``(prompts, prefixes, vocabulary)``, prefixes in the order of
            :func:`token_prefixes`; kept as a float64 parameter.
        max_length: longest response in tokens, EOS included.
        eos: id of the end-of-sequence token.

    Raises:
        ValueError: the shape of the logits does not fit the vocabulary and the length.

    >>> policy = TabularTokenPolicy.uniform(prompts=1, vocabulary=2, max_length=2)
    >>> policy.sequences()
    ((0,), (1, 0), (1, 1))
    >>> policy.sequence_log_probs().exp()[0].tolist()
    [0.5, 0.25, 0.25]
    """

    _rows: Tensor
    _tokens: Tensor
    _counted: Tensor

    def __init__(self, logits: Tensor, max_length: int, eos: int = 0) -> None:
        super().__init__()
        prefixes = token_prefixes(logits.shape[-1], max_length, eos)
        if logits.dim() != 3 or logits.shape[1] != len(prefixes):
            raise ValueError(
                f"logits must have shape (prompts, prefixes, vocabulary) with {len(prefixes)} prefixes for "
                f"{logits.shape[-1]} tokens and max_length {max_length}, got {tuple(logits.shape)}"
            )
        self.max_length, self.eos = max_length, eos
        self.logits = nn.Parameter(logits.detach().to(torch.float64, copy=True))
        self._prefix_index = {prefix: index for index, prefix in enumerate(prefixes)}
        self._sequences = token_sequences(logits.shape[-1], max_length, eos)
        self._tabulate()

    def _tabulate(self) -> None:
        """Buffers of shape (responses, max_length) that look up all tokens of all responses at once."""
        shape = (len(self._sequences), self.max_length)
        rows, tokens = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        counted = torch.zeros(shape, dtype=torch.bool)
        for index, sequence in enumerate(self._sequences):
            for position, token in enumerate(sequence):
                rows[index, position] = self._prefix_index[sequence[:position]]
                tokens[index, position] = token
                counted[index, position] = True
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_tokens", tokens, persistent=False)
        self.register_buffer("_counted", counted, persistent=False)

    @classmethod
    def uniform(cls, prompts: int, vocabulary: int, max_length: int, eos: int = 0) -> TabularTokenPolicy:
        """The policy that finds every next token equally likely."""
        prefixes = len(token_prefixes(vocabulary, max_length, eos))
        return cls(torch.zeros(prompts, prefixes, vocabulary, dtype=torch.float64), max_length, eos)

    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """Every response as token ids, in the order of the ``responses`` axis."""
        return self._sequences

    def finished(self) -> Tensor:
        """Whether each response ends with EOS rather than at the length limit, boolean, shape ``(responses,)``."""
        return torch.tensor([sequence[-1] == self.eos for sequence in self._sequences])

    def lengths(self) -> Tensor:
        """Number of tokens of each response, EOS included where there is one, shape ``(responses,)``."""
        return torch.tensor([len(sequence) for sequence in self._sequences])

    def prefixes(self) -> tuple[tuple[int, ...], ...]:
        """Every prefix after which a token is drawn, in the order of the ``prefixes`` axis."""
        return tuple(self._prefix_index)

    def next_token_log_probs(self) -> Tensor:
        """``log pi(token|x, prefix)``, shape ``(prompts, prefixes, vocabulary)``, nats."""
        return self.logits.log_softmax(-1)

    def token_log_probs(self, prompt: int, sequence: tuple[int, ...]) -> Tensor:
        """Log-prob of each token of a response given what came before, shape ``(tokens,)``, nats, with gradient."""
        rows = [self._prefix_index[sequence[:position]] for position in range(len(sequence))]
        return self.next_token_log_probs()[prompt, rows, list(sequence)]

    def sequence_log_probs(self) -> Tensor:
        """``log pi(y|x)`` of every response, shape ``(prompts, responses)``, nats, with gradient."""
        tokens = self.next_token_log_probs()[:, self._rows, self._tokens]
        return torch.where(self._counted, tokens, 0.0).sum(-1)

    def log_probs(self) -> Tensor:
        """The same as :meth:`sequence_log_probs`."""
        return self.sequence_log_probs()


def token_prefixes(vocabulary: int, max_length: int, eos: int = 0) -> tuple[tuple[int, ...], ...]:
    """Every prefix without EOS shorter than ``max_length``, the shortest first.

    >>> token_prefixes(3, 2)
    ((), (1,), (2,))
    """
    if vocabulary < 2 or max_length < 1 or not 0 <= eos < vocabulary:
        raise ValueError(
            f"need at least 2 tokens, a max_length of at least 1 and an eos among the tokens, "
            f"got {vocabulary} tokens, max_length {max_length}, eos {eos}"
        )
    tokens = [token for token in range(vocabulary) if token != eos]
    return tuple(prefix for length in range(max_length) for prefix in product(tokens, repeat=length))


def token_sequences(vocabulary: int, max_length: int, eos: int = 0) -> tuple[tuple[int, ...], ...]:
    """Every response: the prefixes closed by EOS, then those cut at ``max_length`` without one.

    >>> token_sequences(3, 1)
    ((0,), (1,), (2,))
    """
    prefixes = token_prefixes(vocabulary, max_length, eos)
    tokens = [token for token in range(vocabulary) if token != eos]
    closed = tuple((*prefix, eos) for prefix in prefixes)
    return closed + tuple(product(tokens, repeat=max_length))
