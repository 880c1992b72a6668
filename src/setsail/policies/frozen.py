"""The frozen policies of a run: the reference, an opponent where the method has one, and how they move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from setsail.methods import Method
from setsail.policies.momentum import Extrapolation
from setsail.policies.references import Reference


@dataclass(frozen=True, slots=True)
class FrozenPolicies:
    """What is compared with the policy, and drawn from, without being trained.

    Attributes:
        method: says when they move.
        reference: the policy of the log-ratios.
        opponent: another frozen policy; None where the method has none.
        extrapolation: pushes the policy on before the reference takes it over; None without momentum.
    """

    method: Method
    reference: Reference
    opponent: Reference | None = None
    extrapolation: Extrapolation | None = None

    def to(self, device: torch.device) -> None:
        """Move models of their own to a device; adapters live in the policy and go with it."""
        for holder in (self.reference, self.opponent):
            for part, _ in holder.parts if holder is not None else ():
                module = getattr(part, "module", None)
                if isinstance(module, nn.Module):
                    module.to(device)

    def after_step(self, step: int, *, is_last: bool) -> bool:
        """Move what moves after optimizer step ``step``; say whether the reference did.

        The opponent comes first, since it may take over what the reference is about to lose. After the last step the
        policy is not extrapolated: what was trained is what is kept.
        """
        rule, other = self.method.reference, self.method.opponent
        if self.opponent is not None and other is not None and other.moves_after(step):
            if other.follows == "reference":
                self.opponent.follow(self.reference)
            else:
                self.opponent.move(other.mixup)
        if not rule.moves_after(step):
            return False
        if self.extrapolation is not None and not is_last:
            self.extrapolation.step()
        self.reference.move(rule.mixup)
        return True

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weights of everything that may have moved, for a checkpoint."""
        kept: dict[str, dict[str, Tensor]] = {}
        if self.method.reference.moves:
            kept["reference"] = self.reference.weights()
        if self.opponent is not None and self.method.opponent is not None and self.method.opponent.moves:
            kept["opponent"] = self.opponent.weights()
        if self.extrapolation is not None:
            kept["momentum"] = self.extrapolation.weights()
        return kept

    def restore(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Load one entry of what :meth:`weights` returned."""
        holders = {"reference": self.reference, "opponent": self.opponent, "momentum": self.extrapolation}
        holder = holders[name]
        assert holder is not None, f"a checkpoint with {name} weights for a method that has none"
        holder.restore(weights)
