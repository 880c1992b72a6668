"""What objectives read. Axis legend: ``pairs``, or ``groups`` and ``K`` completions of each; log-probs in nats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Log-probabilities of the two completions of each pair under the policy and under the reference.

    Each is a floating tensor of shape ``(pairs,)``: the sum over the completion's tokens of the log-prob of
    the token given what came before, in nats. An EOS counts if and only if it is one of the completion's
    tokens. Only the ``policy_*`` tensors carry gradient.

    Attributes:
        policy_first, policy_second: log pi(y1|x), log pi(y2|x).
        reference_first, reference_second: log pi_ref(y1|x), log pi_ref(y2|x).
        length_first, length_second: number of tokens, shape ``(pairs,)``; needed only by objectives that
            normalize by length.

    Raises:
        ValueError: the tensors differ in shape, are not one-dimensional or are not floating.
    """

    policy_first: Tensor
    policy_second: Tensor
    reference_first: Tensor
    reference_second: Tensor
    length_first: Tensor | None = None
    length_second: Tensor | None = None

    def __post_init__(self) -> None:
        parts = {
            name: getattr(self, name)
            for name in ("policy_first", "policy_second", "reference_first", "reference_second")
        }
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
        if len(set(shapes.values())) != 1 or self.policy_first.dim() != 1:
            raise ValueError(
                f"log-probs must be four tensors of one shape (pairs,), got {shapes}; sum over tokens first"
            )
        if not all(part.is_floating_point() for part in parts.values()):
            dtypes = {name: part.dtype for name, part in parts.items()}
            raise ValueError(f"log-probs must be floating tensors, got {dtypes}")

    def log_ratio_difference(self) -> Tensor:
        """``[log pi(y1) - log pi_ref(y1)] - [log pi(y2) - log pi_ref(y2)]``, shape ``(pairs,)``, nats."""
        return (self.policy_first - self.policy_second) - (self.reference_first - self.reference_second)

    def per_token(self) -> LogProbs:
        """The same record with each log-prob divided by its completion's length (nats a token)."""
        if self.length_first is None or self.length_second is None:
            raise ValueError("length normalization needs length_first and length_second in the record; pass both")
        first, second = self.length_first.clamp(min=1), self.length_second.clamp(min=1)
        return LogProbs(
            self.policy_first / first,
            self.policy_second / second,
            self.reference_first / first,
            self.reference_second / second,
            self.length_first,
            self.length_second,
        )

    def swapped(self) -> LogProbs:
        """The record with the two completions of each pair exchanged."""
        return LogProbs(
            self.policy_second,
            self.policy_first,
            self.reference_second,
            self.reference_first,
            self.length_second,
            self.length_first,
        )

    def group(self) -> GroupLogProbs:
        """The same pairs as groups of two, shape ``(pairs, 2)``."""
        length = None
        if self.length_first is not None and self.length_second is not None:
            length = torch.stack([self.length_first, self.length_second], -1)
        return GroupLogProbs(
            torch.stack([self.policy_first, self.policy_second], -1),
            torch.stack([self.reference_first, self.reference_second], -1),
            length,
        )

    def select(self, index: Tensor) -> LogProbs:
        """The record of the pairs at ``index`` (a boolean mask or positions)."""
        lengths: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.length_first is not None and self.length_second is not None:
            lengths = (self.length_first[index], self.length_second[index])
        return LogProbs(
            self.policy_first[index],
            self.policy_second[index],
            self.reference_first[index],
            self.reference_second[index],
            *lengths,
        )


@dataclass(frozen=True, slots=True)
class GroupLogProbs:
    """Log-probabilities of K completions of each prompt under the policy and under the reference.

    The K = 2 case holds the same numbers as :class:`LogProbs`; K = 1 is a single completion to be imitated.

    Attributes:
        policy: log pi(y_k|x), shape ``(groups, K)``, nats, summed over the completion's tokens, with gradient.
        reference: log pi_ref(y_k|x), the same shape, without gradient.
        length: number of tokens of each completion, same shape; needed only by objectives that normalize by length.

    Raises:
        ValueError: the tensors differ in shape, are not two-dimensional or are not floating.
    """

    policy: Tensor
    reference: Tensor
    length: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = {"policy": tuple(self.policy.shape), "reference": tuple(self.reference.shape)}
        if len(set(shapes.values())) != 1 or self.policy.dim() != 2:
            raise ValueError(
                f"log-probs of groups must be two tensors of one shape (groups, K), got {shapes}; sum over tokens first"
            )
        if not (self.policy.is_floating_point() and self.reference.is_floating_point()):
            raise ValueError(f"log-probs must be floating tensors, got {self.policy.dtype} and {self.reference.dtype}")

    def log_ratio(self) -> Tensor:
        """``log pi(y_k) - log pi_ref(y_k)``, shape ``(groups, K)``, nats."""
        return self.policy - self.reference

    def per_token(self) -> GroupLogProbs:
        """The same record with each log-prob divided by its completion's length (nats a token)."""
        if self.length is None:
            raise ValueError("length normalization needs the lengths of the completions in the record; pass length=")
        length = self.length.clamp(min=1)
        return GroupLogProbs(self.policy / length, self.reference / length, self.length)

    def pair(self, first: int = 0, second: int = 1) -> LogProbs:
        """Two completions of each group as pairs, shape ``(groups,)``."""
        lengths = (None, None) if self.length is None else (self.length[:, first], self.length[:, second])
        return LogProbs(
            self.policy[:, first],
            self.policy[:, second],
            self.reference[:, first],
            self.reference[:, second],
            *lengths,
        )

    def select(self, index: Tensor) -> GroupLogProbs:
        """The record of the groups at ``index`` (a boolean mask or positions)."""
        return GroupLogProbs(
            self.policy[index], self.reference[index], None if self.length is None else self.length[index]
        )


PairwiseObjective = Callable[[LogProbs, Tensor | None], Tensor]
"""``objective(logps, p) -> loss of each pair``, its parameters already bound."""

GroupObjective = Callable[[GroupLogProbs, Tensor], Tensor]
"""``objective(logps, values) -> loss of each group``, its parameters already bound.

``values`` has the shape ``(groups, K)``: one number a completion, such as a reward or a win rate; constants.
"""


def check_values(values: Tensor, logps: GroupLogProbs, at_least: int = 2) -> None:
    """Refuse values of another shape than the completions, that are not finite numbers, or too few a group."""
    if values.shape != logps.policy.shape or not values.is_floating_point():
        raise ValueError(
            f"values must be a floating tensor of one number a completion, shape {tuple(logps.policy.shape)}, got "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    if values.shape[1] < at_least:
        raise ValueError(f"this objective compares at least {at_least} completions of a prompt, got {values.shape[1]}")
    if values.device.type == "cpu" and not bool(values.isfinite().all()):
        raise ValueError("values must be finite numbers; drop completions whose score is missing before the loss")


def check_preference(p: Tensor, logps: LogProbs) -> None:
    """Refuse a ``p`` of another shape than the pairs, or (on the CPU, where looking is free) outside [0, 1]."""
    if not p.is_floating_point():
        raise ValueError(f"p must be a floating tensor of probabilities, got {p.dtype}; convert it with p.float()")
    if p.shape != logps.policy_first.shape:
        raise ValueError(
            f"p must hold one probability a pair, shape {tuple(logps.policy_first.shape)}, got {tuple(p.shape)}"
        )
    if p.device.type == "cpu" and p.numel() and not bool(((p >= 0) & (p <= 1)).all()):
        worst = p.detach()[torch.argmax((p.detach() - 0.5).abs().nan_to_num(nan=torch.inf))].item()
        raise ValueError(f"p must lie in [0, 1], got {worst}; drop pairs whose preference is missing before the loss")


def check_positive(name: str, value: float) -> None:
    """Refuse a parameter that must be a positive number."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Refuse a coefficient that must be zero or a positive number."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be zero or positive, got {value}")
