"""What one forward and backward pass reads. Axis legend: ``A`` distinct answers, ``G`` groups of the micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from setsail.core import Completion, Group, Prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion of a prompt, scored once however many groups and added terms read it."""

    prompt: Prompt
    completion: Completion

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """What makes two answers the same: the row and the tokens."""
        return self.prompt.row_id, self.completion.token_ids


@dataclass(frozen=True, slots=True)
class Extra:
    """The answers that one added term reads: their indices, and the weight of each in the loss."""

    answers: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Groups of one forward pass.

    Attributes:
        answers: the distinct answers to score; never empty.
        reference: token log-probs of each answer under the reference.
        groups: what is learnt from; empty where everything is missing (the forward pass still runs, at weight 0, so
            that processes stay in step).
        members: indices of each group's completions among the answers.
        weights: what each group's loss is multiplied by, shape ``(G,)``: 1 / groups of its row x processes / rows
            that have groups in the global batch. So the average over processes of the sums is the mean over rows of
            the mean over their groups: a row that gives many pairs counts no more than one that gives one, and the
            mixture is the one asked for.
        baselines: of the online correction, shape ``(G,)``.
        uniforms: one draw from [0, 1) a group, for sampled labels, shape ``(G,)``.
        facts: what else the objective asks for, by the name of its argument: a list of one number (or one number a
            completion) for each group, or one number for all.
        extras: by addend name.
        policy_version: optimizer steps taken before this one.
    """

    answers: tuple[Answer, ...]
    reference: tuple[Tensor, ...]
    groups: tuple[Group, ...]
    members: tuple[tuple[int, ...], ...]
    weights: Tensor
    baselines: Tensor
    uniforms: Tensor
    facts: dict[str, list[Any] | float]
    extras: dict[str, Extra]
    policy_version: int

    @property
    def prompt_ids(self) -> list[Sequence[int]]:
        """Prompt ids of every answer."""
        return [answer.prompt.token_ids for answer in self.answers]

    @property
    def completion_ids(self) -> list[Sequence[int]]:
        """Completion ids of every answer."""
        return [answer.completion.token_ids for answer in self.answers]


class AnswerSheet:
    """Collects distinct answers and says where each stands."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._index: dict[tuple[int, tuple[int, ...]], int] = {}

    def add(self, prompt: Prompt, completion: Completion) -> int:
        """The index of an answer, which is new or the same as an earlier one."""
        answer = Answer(prompt, completion)
        index = self._index.setdefault(answer.key, len(self.answers))
        if index == len(self.answers):
            self.answers.append(answer)
        return index


def preferences(groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
    """``p`` of each group; 1/2 where there is none to read: labeled inside the loss, or compared by values."""
    return torch.tensor([0.5 if group.p is None else group.p for group in groups], dtype=dtype)


def values_of(groups: Sequence[Group], dtype: torch.dtype) -> Tensor | None:
    """Values of groups of one size, shape ``(G, K)``; None where they are compared by preference."""
    if not groups or groups[0].values is None:
        return None
    return torch.tensor([group.values for group in groups], dtype=dtype)
