"""Momentum across rounds: the policy is pushed on along the way it came."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from setsail.core import ConfigError
from setsail.policies.snapshots import same_names, trainable


class Extrapolation:
    """Nesterov extrapolation of the trainable weights, once at the end of each round.

        theta~_{t+1} = theta^_{t+1} + momentum (theta^_{t+1} - theta^_t)

    ``theta^_t`` are *optimized* weights, as the training of round t left them; ``theta~_t`` the extrapolated ones, from
    which the next round starts, samples and takes its reference. The difference is between two optimized points: taking
    it to the last extrapolated point is another, slower recursion. ``theta^_0`` are the weights at construction.

    For policies whose logits are linear in theta this is the papers' step on policies, ``pi~ propto pi^ (pi^_{t+1} /
    pi^_t)^momentum``; for a network it is the step on weights that stands in for it. The optimizer's moments are left
    alone.

    Args:
        policy: its parameters that want gradient are extrapolated.
        momentum: in [0, 1); at 0 the policy stays as it is, bit for bit.

    Raises:
        ConfigError: the momentum is outside [0, 1), or no parameter wants gradient.

    Source: arXiv 2410.06293 (accelerated preference optimization), the extrapolation step; its
    :math:`\\alpha` is ``momentum``.

    Example: each round adds 1 to the weight; the third round's optimized weight is 3.69 instead of 3.

        >>> policy = nn.Linear(1, 1, bias=False).double().requires_grad_()
        >>> _ = policy.weight.data.zero_()
        >>> extrapolation = Extrapolation(policy, momentum=0.3)
        >>> for _ in range(3):
        ...     _ = policy.weight.data.add_(1.0)
        ...     optimized = policy.weight.item()
        ...     extrapolation.step()
        >>> round(optimized, 9), round(policy.weight.item(), 9)
        (3.69, 4.107)
    """

    def __init__(self, policy: nn.Module, momentum: float) -> None:
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), got {momentum}; from 1 on the rounds would run away")
        self.momentum = momentum
        self._own = trainable(policy)
        self._last = {name: parameter.detach().clone() for name, parameter in self._own.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Extrapolate the policy, and remember where training had brought it. Call it before the reference moves."""
        for name, parameter in self._own.items():
            last, self._last[name] = self._last[name], parameter.detach().clone()
            if self.momentum > 0:
                # In float32 at least: the difference of two rounds is small beside the weights.
                now = parameter.to(torch.promote_types(parameter.dtype, torch.float32))
                # To the parameter's device too: a policy may have moved since its weights were first kept.
                parameter.copy_(now + self.momentum * (now - last.to(now)))

    def weights(self) -> dict[str, Tensor]:
        """The last optimized weights, for a checkpoint."""
        return dict(self._last)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load what :meth:`weights` returned.

        Raises:
            CheckpointError: they are not this policy's.
        """
        same_names(weights, self._own, "the checkpoint's extrapolation")
        self._last = {name: weights[name].to(parameter, copy=True) for name, parameter in self._own.items()}
