"""A Python function that compares two answers, asked in both orders."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import accumulate, permutations
from typing import Any

from setsail.core import Candidates, ConfigError, Judgement
from setsail.labelers.background import BackgroundLoop
from setsail.labelers.calling import RewardFunction, arguments_of, call, function_name, read_answer

SIDES = ("firsts", "seconds")
"""Arguments by which a function is known to compare, and not to score."""


def compares(function: Any) -> bool:
    """Whether a function takes ``firsts`` and ``seconds``: it compares answers instead of scoring them.

    >>> compares(lambda prompts, firsts, seconds: []), compares(lambda prompts, completions: [])
    (True, False)
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return all(side in parameters for side in SIDES)


class PreferenceFunction:
    """A general preference model: a function that says how likely one answer is preferred to another.

        P_ij = (f(x, y_i, y_j) + 1 - f(x, y_j, y_i)) / 2

    Every two candidates are asked about in both orders, so that a liking for the first place cancels. The preference
    need not come from scores, and may go in circles; rules that rank candidates use their win rates.

    Args:
        function: ``f(prompts, firsts, seconds, **dataset_columns)``, each argument a list with one entry a question;
            returns the probability that the first is preferred, or None, for each. May be ``async``. For conversational
            prompts an answer is ``[{"role": "assistant", "content": ...}]``, as for reward functions.
        hard: the likelier side wins with certainty, after averaging; 1/2 stays.
        name: who signs the judgements; by default the function's name.

    A question without an answer, or with one outside [0, 1], leaves the pair without a preference; a function that
    raises or returns another number of answers leaves all of them without, and ``reason`` says why.

    Raises:
        ConfigError: the function does not take ``firsts`` and ``seconds``.

    Source: the preference models of arXiv 2312.00886; both orders as in arXiv 2402.04792.

    >>> from setsail.core import Completion, Prompt
    >>> def likes_the_first(firsts, seconds, **kwargs):
    ...     return [0.7 + 0.2 * (a < b) for a, b in zip(firsts, seconds)]
    >>> answers = tuple(Completion(token_ids=(2,), text=text) for text in ("a", "b"))
    >>> group = Candidates(prompt=Prompt(row_id=0, text="Hi", token_ids=(1,)), completions=answers)
    >>> [judgement] = PreferenceFunction(likes_the_first).label([group])
    >>> judgement.scores, round(judgement.preference[0][1], 6)
    (None, 0.6)
    """

    def __init__(self, function: RewardFunction, *, hard: bool = False, name: str | None = None) -> None:
        if not compares(function):
            raise ConfigError(
                f"{function_name(function)!r} does not take the arguments {' and '.join(SIDES)}, so it cannot compare "
                "answers; a function of completions alone is a reward function"
            )
        self.function = function
        self.hard = hard
        self.name = name or function_name(function)
        self.trainer_state: Any = None
        self._loop = BackgroundLoop()

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """Ask about every two candidates of every group in one call; one judgement a group."""
        ends = list(accumulate(len(group.completions) for group in groups))
        starts = [end - len(group.completions) for end, group in zip(ends, groups, strict=True)]
        questions = [
            pair for start, end in zip(starts, ends, strict=True) for pair in permutations(range(start, end), 2)
        ]
        answers, reasons = self._ask(groups, questions)
        said = dict(zip(questions, zip(answers, reasons, strict=True), strict=True))
        return [
            self._judgement(start, len(group.completions), said) for start, group in zip(starts, groups, strict=True)
        ]

    def _ask(
        self, groups: Sequence[Candidates], questions: Sequence[tuple[int, int]]
    ) -> tuple[list[float | None], list[str]]:
        if not questions:
            return [], []
        answer = call(self.function, lambda: _of_questions(arguments_of(groups, self.trainer_state), questions))
        if inspect.iscoroutine(answer):
            [answer] = self._loop.gather([answer])
        values, reasons = read_answer(answer, len(questions))
        for place, value in enumerate(values):
            if value is not None and not 0 <= value <= 1:
                values[place], reasons[place] = None, f"it returned {value:g}, which is no probability"
        return values, reasons

    def _judgement(self, start: int, count: int, said: dict[tuple[int, int], tuple[float | None, str]]) -> Judgement:
        places = range(start, start + count)
        preference = tuple(tuple(self._preference(i, j, said) for j in places) for i in places)
        own = [said[pair][1] for pair in permutations(places, 2)]
        reason = "; ".join(f"{self.name}: {each}" for each in dict.fromkeys(own) if each)
        return Judgement(preference=preference, scores=None, labeler=self.name, reason=reason)

    def _preference(self, i: int, j: int, said: dict[tuple[int, int], tuple[float | None, str]]) -> float | None:
        if i == j:
            return 0.5
        forward, backward = said[i, j][0], said[j, i][0]
        if forward is None or backward is None:
            return None
        p = (forward + 1 - backward) / 2
        if not self.hard:
            return p
        # Two orders that cancel do so up to rounding, and rounding must not decide.
        return 0.5 if abs(p - 0.5) <= 1e-9 else float(p > 0.5)


def _of_questions(offered: dict[str, Any], questions: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What is on offer for questions, from what is on offer for completions; prompts and columns are the first's."""
    completions = offered.pop("completions")
    offered.pop("completion_ids")
    asked = {
        name: [value[i] for i, _ in questions] if isinstance(value, list) else value for name, value in offered.items()
    }
    return {
        **asked,
        "firsts": [completions[i] for i, _ in questions],
        "seconds": [completions[j] for _, j in questions],
    }
