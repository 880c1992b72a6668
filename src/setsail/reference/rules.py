"""When the reference moves, and how far."""

from __future__ import annotations

from dataclasses import dataclass

from setsail.core import SpecError


@dataclass(frozen=True, slots=True)
class ReferenceRule:
    """``pi_ref <- (1 - mixup) pi_ref + mixup pi`` (on the weights) after every ``steps`` optimizer steps.

    Attributes:
        steps: optimizer steps between two moves; None = the reference never moves.
        mixup: share of the policy's weights taken over, in (0, 1]; 1 replaces the reference, small values with
            ``steps = 1`` are an exponential moving average.
    """

    steps: int | None = None
    mixup: float = 1.0

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise SpecError(
                f"the reference cannot move every {self.steps} steps; give 1 or more, or None to keep it fixed"
            )
        if not 0 < self.mixup <= 1:
            raise SpecError(f"the reference takes over a share in (0, 1] of the policy's weights, got {self.mixup}")

    @property
    def moves(self) -> bool:
        """Whether the reference ever moves."""
        return self.steps is not None

    def moves_after(self, step: int) -> bool:
        """Whether the reference moves once optimizer step number ``step`` (counted from 1) is done."""
        return self.steps is not None and step > 0 and step % self.steps == 0

    def __str__(self) -> str:
        if self.steps is None:
            return "fixed"
        return f"every {self.steps} steps" + (f", mixup {self.mixup:g}" if self.mixup < 1 else "")


def fixed() -> ReferenceRule:
    """The starting policy, for the whole run."""
    return ReferenceRule()


def every(steps: int, mixup: float = 1.0) -> ReferenceRule:
    """The policy as it was at the last multiple of ``steps``.

    >>> [step for step in range(1, 8) if every(3).moves_after(step)]
    [3, 6]
    """
    return ReferenceRule(steps, mixup)
