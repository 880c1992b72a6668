"""Python reward functions as a labeler."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from setsail.core import Candidates, ConfigError, Judgement
from setsail.labelers.background import BackgroundLoop
from setsail.labelers.calling import RewardFunction, arguments_of, call, function_name, read_answer
from setsail.labelers.scores import check_scale, judgement_from_scores

Column = tuple[list[float | None], list[str]]
"""What one function said: a score a completion, and for each why it is missing ("" if it is not)."""


def check_weights(weights: Sequence[float] | None, count: int, *, nonnegative: bool = False) -> tuple[float, ...]:
    """One finite weight for each of ``count`` parts, 1 each for None.

    Raises:
        ConfigError: another number of weights, one that is not finite, none that is not zero, or a negative one
            where weights must not be.
    """
    weights = (1.0,) * count if weights is None else tuple(float(weight) for weight in weights)
    if len(weights) != count:
        raise ConfigError(f"{len(weights)} weights for {count} labelers: give one weight each, in the same order")
    if not all(math.isfinite(weight) for weight in weights) or not any(weights):
        raise ConfigError(f"weights {list(weights)}: they must be finite, and at least one not zero")
    if nonnegative and min(weights) < 0:
        raise ConfigError(f"weights {list(weights)}: an average of probabilities takes no negative weights")
    return weights


class RewardFunctions:
    """One or several Python functions that score completions; their weighted sum decides.

        score(x, y) = sum_k weight_k * f_k(x, y),     P_ij = sigmoid((score_i - score_j) / scale)

    The functions have the form of TRL's: ``f(prompts, completions, completion_ids=..., **dataset_columns)`` with
    one list entry a completion, returning a list with one float, or None, a completion. Conversational prompts
    arrive as lists of messages and their completions as ``[{"role": "assistant", "content": ...}]``. A function is
    given only the keyword arguments that it accepts. ``async`` functions run concurrently.

    What cannot be scored is missing: where a function returns None or NaN for a completion, and for the whole call
    where it raises or returns the wrong number of scores. A completion is missing as soon as one function of
    nonzero weight is; a function of weight zero is not called. The judgement's ``reason`` names the function.

    Args:
        functions: the function, or several.
        weights: one each, may be negative (costs); 1 each by default.
        hard: the higher score wins with certainty.
        scale: score gap that counts as one nat of log-odds.
        name: who signs the judgements; by default the functions' names joined by ``+``.

    Attributes:
        trainer_state: handed to functions that ask for ``trainer_state``; None until a trainer sets it.

    Raises:
        ConfigError: no function, something that cannot be called, or unusable weights or scale.

    >>> from setsail.core import Completion, Prompt
    >>> def brevity(completions, **kwargs):
    ...     return [-len(text) for text in completions]
    >>> prompt = Prompt(row_id=0, text="Hi", token_ids=(1,))
    >>> answers = tuple(Completion(token_ids=(2,), text=text) for text in ("Hello", "Hello!"))
    >>> [judgement] = RewardFunctions(brevity).label([Candidates(prompt=prompt, completions=answers)])
    >>> judgement.labeler, judgement.scores, round(judgement.preference[0][1], 4)
    ('brevity', (-5.0, -6.0), 0.7311)
    """

    def __init__(
        self,
        functions: RewardFunction | Sequence[RewardFunction],
        weights: Sequence[float] | None = None,
        *,
        hard: bool = False,
        scale: float = 1.0,
        name: str | None = None,
    ) -> None:
        self.functions = tuple(functions) if isinstance(functions, Sequence) else (functions,)
        for function in self.functions:
            if not callable(function):
                raise ConfigError(f"a reward function must be callable, got {function!r}")
        if not self.functions:
            raise ConfigError("no reward function given: pass one callable, or a list of them")
        self.weights = check_weights(weights, len(self.functions))
        self.hard = hard
        self.scale = check_scale(scale)
        self.name = name or "+".join(function_name(function) for function in self.functions)
        self.trainer_state: Any = None
        self._loop = BackgroundLoop()

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """Score every completion of every group in one call a function; one judgement a group."""
        counts = [len(group.completions) for group in groups]
        if not sum(counts):
            return [self._judge([], []) for _ in groups]
        columns = self._call_all(groups, sum(counts))
        totals = [self._total(columns, index) for index in range(sum(counts))]
        judgements, start = [], 0
        for count in counts:
            part = totals[start : start + count]
            judgements.append(self._judge([score for score, _ in part], [reason for _, reason in part]))
            start += count
        return judgements

    def _judge(self, scores: list[float | None], reasons: list[str]) -> Judgement:
        distinct = dict.fromkeys(reason for reason in reasons if reason)
        return judgement_from_scores(
            scores, labeler=self.name, hard=self.hard, scale=self.scale, reason="; ".join(distinct)
        )

    def _total(self, columns: dict[int, Column], index: int) -> tuple[float | None, str]:
        """The weighted sum for one completion, or None and the reasons of the functions that do not say."""
        total, reasons = 0.0, []
        for which, (scores, why) in columns.items():
            score = scores[index]
            if score is None:
                reasons.append(f"{function_name(self.functions[which])}: {why[index]}")
            else:
                total += self.weights[which] * score
        return (None, "; ".join(reasons)) if reasons else (total, "")

    def _call_all(self, groups: Sequence[Candidates], count: int) -> dict[int, Column]:
        active = [index for index, weight in enumerate(self.weights) if weight != 0]
        offer = partial(arguments_of, groups, self.trainer_state)
        answers = {index: call(self.functions[index], offer) for index in active}
        waiting = [index for index in active if inspect.iscoroutine(answers[index])]
        answers |= dict(zip(waiting, self._loop.gather([answers[index] for index in waiting]), strict=True))
        return {index: read_answer(answers[index], count) for index in active}
