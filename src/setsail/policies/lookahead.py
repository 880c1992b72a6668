"""Extragradient steps: look ahead, come back, and step from where one was with what was seen there (arXiv 2503.08942).

Optimizer steps come in twos. The first is an ordinary step that leads to the half-way point. Before the second, its
completions are drawn from the half-way point; then weights and optimizer return to where the first began, and the
gradient is taken there.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from setsail.policies.snapshots import Snapshot


class Lookahead:
    """Takes a snapshot before every first step and returns to it before the gradient of every second."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def before_update(self, step: int, policy: nn.Module, optimizer: Any) -> None:
        """Called with the steps done so far, once the step's completions are drawn and before its gradient."""
        if step % 2 == 0 or self.snapshot is None:
            self.snapshot = Snapshot.take(policy, optimizer)
        else:
            self.snapshot.restore(policy, optimizer)
            self.snapshot = None

    def finish(self, policy: nn.Module, optimizer: Any) -> None:
        """At the end of a run: a look-ahead without its second step is taken back."""
        if self.snapshot is not None:
            self.snapshot.restore(policy, optimizer)
            self.snapshot = None

    def tensors(self) -> dict[str, Tensor]:
        """The snapshot, for a checkpoint between the two steps; empty where there is none."""
        return {} if self.snapshot is None else self.snapshot.weights()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned."""
        self.snapshot = Snapshot.from_weights(tensors) if tensors else None
