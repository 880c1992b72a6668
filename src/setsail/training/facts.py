"""What some objectives ask for beside log-probs and values, worked out from the global batch before a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from setsail.core import Completion, Group, Prompt
from setsail.methods import Method
from setsail.objectives import GroupLogProbs, bco_reward_shift, kto_reference_point, leave_one_out
from setsail.training.groups import Gather, Score

Facts = dict[str, list[Any] | float]
"""By the name of the objective's argument: one entry a group, or one number for all."""

KEEP = 0.9
"""Share of the running midpoint that one step keeps."""


class FactMaker:
    """Works out a method's facts; remembers the running midpoint between steps.

    Args:
        method: says which facts its objective asks for, and as which argument.
        score_policy, score_reference: token log-probs of completions, without gradient.
        gather: joins the lists of all processes, so that each knows the global batch.
    """

    def __init__(self, method: Method, *, score_policy: Score, score_reference: Score, gather: Gather) -> None:
        self.method, self.gather = method, gather
        self.score_policy, self.score_reference = score_policy, score_reference
        self.midpoint: float | None = None
        self._known: Mapping[str, Callable[[Sequence[Group]], list[Any] | float]] = {
            "sampling": self._sampling,
            "group-mean": self._group_mean,
            "batch-mean": self._batch_mean,
            "mismatched": self._mismatched,
            "midpoint": self._running_midpoint,
        }

    def make(self, groups: Sequence[Group]) -> Facts:
        """The facts of this process's groups of one step."""
        return {argument: self._known[fact](groups) for argument, fact in self.method.facts.items()}

    def forget(self) -> None:
        """Drop what belongs to an earlier run."""
        self.midpoint = None

    def state(self) -> dict[str, Any]:
        """What must survive a checkpoint."""
        return {"midpoint": self.midpoint}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.midpoint = state["midpoint"]

    def _sampling(self, groups: Sequence[Group]) -> list[Any]:
        """Log-probs of every completion when it was drawn."""
        return [[one.logp for one in group.completions] for group in groups]

    def _group_mean(self, groups: Sequence[Group]) -> list[Any]:
        return [sum(group.values or ()) / max(len(group.values or ()), 1) for group in groups]

    def _batch_mean(self, groups: Sequence[Group]) -> list[Any]:
        """Mean value over the other rows of the global batch; 0 where there is no other."""
        mine = [(group.prompt.row_id, mean) for group, mean in zip(groups, self._group_mean(groups), strict=True)]
        by_row = leave_one_out_by_row(self.gather(mine), alone=0.0)
        return [by_row[group.prompt.row_id] for group in groups]

    def _mismatched(self, groups: Sequence[Group]) -> float:
        """KTO's reference point: each prompt with an answer to the next row of the global batch that asks another."""
        own = {group.prompt.row_id: group for group in reversed(groups)}
        mine = [(row, list(group.prompt.token_ids), list(group.first.token_ids)) for row, group in own.items()]
        everyone = sorted(self.gather(mine))
        found = {row: _next_of_another_prompt(row, everyone) for row in own}
        prompts = [own[row].prompt for row in sorted(own) if found[row] is not None]
        others = [Completion(token_ids=tuple(found[prompt.row_id] or ()), text="") for prompt in prompts]
        ratios = sorted(self.gather([float(ratio) for ratio in self._ratios(prompts, others)]))
        if not ratios:
            return 0.0
        column = torch.tensor(ratios, dtype=torch.float64).unsqueeze(-1)
        return float(kto_reference_point(GroupLogProbs(column, torch.zeros_like(column))))

    def _running_midpoint(self, groups: Sequence[Group]) -> float:
        """BCO's reward shift: half-way between the two kinds of completions' mean rewards, averaged over steps."""
        prompts = [group.prompt for group in groups for _ in group.completions]
        sides = [one for group in groups for one in group.completions]
        marks = [value for group in groups for value in group.values or ()]
        ratios = [float(ratio) for ratio in self._ratios(prompts, sides)]
        everyone = sorted(self.gather(list(zip(marks, ratios, strict=True))))
        if len({mark > 0 for mark, _ in everyone}) == 2:
            column = torch.tensor([[ratio] for _, ratio in everyone], dtype=torch.float64)
            values = torch.tensor([[mark] for mark, _ in everyone], dtype=torch.float64)
            now = float(bco_reward_shift(GroupLogProbs(column, torch.zeros_like(column)), values, self.method.beta))
            self.midpoint = now if self.midpoint is None else KEEP * self.midpoint + (1 - KEEP) * now
        return self.midpoint or 0.0

    def _ratios(self, prompts: Sequence[Prompt], sides: Sequence[Completion]) -> list[Tensor]:
        """``log pi(y) - log pi_ref(y)`` of each completion."""
        policy, reference = self.score_policy(prompts, sides), self.score_reference(prompts, sides)
        return [a.double().sum() - b.double().sum() for a, b in zip(policy, reference, strict=True)]


def leave_one_out_by_row(values: Sequence[tuple[int, float]], alone: float) -> dict[int, float]:
    """Mean value over the other rows, of each row of ``(row, value)`` of the global batch.

    Sorted by row, so that the sum does not depend on how rows were dealt to processes; ``alone`` where there is no
    other row.
    """
    ordered = sorted(values)
    rows = torch.tensor([row for row, _ in ordered], dtype=torch.int64)
    means = leave_one_out(torch.tensor([value for _, value in ordered], dtype=torch.float64), rows, alone)
    return {row: float(mean) for (row, _), mean in zip(ordered, means, strict=True)}


def _next_of_another_prompt(row: int, everyone: Sequence[tuple[int, list[int], list[int]]]) -> list[int] | None:
    """The answer of the next row, past the end the first ones, whose prompt is another; None where there is none.

    The two answers of one pair, marked one by one, are rows that follow each other and ask the same.

    >>> everyone = [(0, [7], [1]), (1, [7], [2]), (2, [8], [3])]
    >>> [_next_of_another_prompt(row, everyone) for row in range(3)]
    [[3], [3], [1]]
    """
    here = next(index for index, entry in enumerate(everyone) if entry[0] == row)
    asked = everyone[here][1]
    return next((answer for _, prompt, answer in (*everyone[here:], *everyone[:here]) if prompt != asked), None)
