"""When a frozen policy (the reference, or an opponent) moves, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from setsail.core import SpecError, nearest

Followed = Literal["policy", "reference"]
FOLLOWED: tuple[Followed, ...] = ("policy", "reference")


@dataclass(frozen=True, slots=True)
class ReferenceRule:
    """``pi_ref <- (1 - mixup) pi_ref + mixup pi`` (on the weights) after every ``steps`` optimizer steps.

    Attributes:
        steps: optimizer steps between two moves; None = it never moves.
        mixup: share of the policy's weights taken over, in (0, 1]; 1 replaces the reference, small values with
            ``steps = 1`` are an exponential moving average.
        momentum: at each move the *policy* is first extrapolated, ``theta <- theta + momentum (theta - theta_last)``
            with theta_last the weights it had been trained to by the move before (arXiv 2410.06293).
        anchor: share of the starting reference (by default the starting policy) in the reference's log-probs,
            ``anchor log pi_0 + (1 - anchor) log pi_t`` with pi_t the policy of the last move: the product of two frozen
            policies, whose normalizer cancels between the completions of a prompt (arXiv 2407.00617).
        follows: whose weights it takes over: the policy's, or (an opponent only) those the reference has before it
            moves, so that it is one move behind.
    """

    steps: int | None = None
    mixup: float = 1.0
    momentum: float = 0.0
    anchor: float = 0.0
    follows: Followed = "policy"

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise SpecError(
                f"the reference cannot move every {self.steps} steps; give 1 or more, or None to keep it fixed"
            )
        if not 0 < self.mixup <= 1:
            raise SpecError(f"the reference takes over a share in (0, 1] of the policy's weights, got {self.mixup}")
        if not 0 <= self.momentum < 1:
            raise SpecError(f"momentum must lie in [0, 1), got {self.momentum}; at 1 the extrapolation never settles")
        if not 0 <= self.anchor < 1:
            raise SpecError(
                f"anchor is the starting policy's share of the reference, in [0, 1), got {self.anchor}; for 1 keep the "
                "reference fixed"
            )
        if self.follows not in FOLLOWED:
            raise SpecError(
                f"a frozen policy follows the {' or the '.join(FOLLOWED)}, got {self.follows!r}"
                f"{nearest(self.follows, FOLLOWED)}"
            )
        if self.steps is None and (self.momentum or self.anchor):
            raise SpecError("momentum and anchor belong to a reference that moves; give it steps as well")

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
        whose = "one move behind the reference, " if self.follows == "reference" else ""
        parts = [f"{whose}every {self.steps} steps" if self.steps > 1 else f"{whose}every step"]
        named = (("mixup", self.mixup, 1.0), ("momentum", self.momentum, 0.0), ("anchor", self.anchor, 0.0))
        parts += [f"{name} {value:.3g}" for name, value, neutral in named if value != neutral]
        return ", ".join(parts)


def fixed() -> ReferenceRule:
    """The starting policy, for the whole run."""
    return ReferenceRule()


def every(steps: int, mixup: float = 1.0, *, momentum: float = 0.0, anchor: float = 0.0) -> ReferenceRule:
    """The policy as it was at the last multiple of ``steps``.

    >>> [step for step in range(1, 8) if every(3).moves_after(step)]
    [3, 6]
    """
    return ReferenceRule(steps, mixup, momentum, anchor)


def average(mixup: float) -> ReferenceRule:
    """The exponential moving average of the policy's weights: ``average <- (1 - mixup) average + mixup pi``.

    >>> str(average(0.001))
    'every step, mixup 0.001'
    """
    return ReferenceRule(1, mixup)


def one_move_behind(steps: int) -> ReferenceRule:
    """What the reference was before its last move, for an opponent; ``steps`` are the reference's own."""
    return ReferenceRule(steps, follows="reference")
