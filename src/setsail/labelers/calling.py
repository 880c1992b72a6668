"""How a reward function is called: which keyword arguments it is given, and what its answer may be.

The form is that of TRL's reward functions: ``f(prompts, completions, completion_ids, **dataset_columns)``,
each argument a list with one entry a completion.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from setsail.core import Candidates
from setsail.labelers.scores import finite_score

RewardFunction = Callable[..., Any]
"""``f(prompts, completions, ...) -> list of float or None``, or an awaitable of one."""

OWN_ARGUMENTS = ("prompts", "completions", "completion_ids")


class UnusableCallError(TypeError):
    """A function cannot be called with what there is, or what it returned is not a list of scores."""


def function_name(function: RewardFunction) -> str:
    """The name a person would call it by: of the wrapped function for a partial, of the class for an instance."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def describe(error: BaseException) -> str:
    """``"ValueError: message"``, the message on one line; the type alone where there is no message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stands for TRL's logging callbacks, which a reward function may call."""


def arguments_of(groups: Sequence[Candidates], trainer_state: Any = None) -> dict[str, list[Any] | Any]:
    """Every keyword argument on offer for these groups: one list entry a completion, groups one after another.

    A conversational prompt is its list of messages and the completion ``[{"role": "assistant", "content": ...}]``;
    otherwise both are plain text. A column that a row lacks is None for its completions.
    """
    names = sorted({name for group in groups for name in group.prompt.columns})
    offered: dict[str, Any] = {name: [] for name in names}
    # A column of the data set never replaces what the trainer itself provides.
    offered |= {"trainer_state": trainer_state, "log_extra": _ignore, "log_metric": _ignore}
    offered |= {name: [] for name in OWN_ARGUMENTS}
    columns = [name for name in names if isinstance(offered[name], list) and name not in OWN_ARGUMENTS]
    for group in groups:
        messages = group.prompt.messages
        for completion in group.completions:
            turn = [{"role": "assistant", "content": completion.text}]
            offered["prompts"].append(group.prompt.text if messages is None else [dict(each) for each in messages])
            offered["completions"].append(completion.text if messages is None else turn)
            offered["completion_ids"].append(list(completion.token_ids))
            for name in columns:
                offered[name].append(group.prompt.columns.get(name))
    return offered


def accepted(function: RewardFunction, offered: dict[str, Any]) -> dict[str, Any]:
    """The part of ``offered`` that ``function`` accepts by name; all of it with ``**kwargs``.

    Raises:
        UnusableCallError: it requires an argument that is not on offer; the message names the columns there are.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C do not tell their signature
        return offered
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty]
    absent = [name for name in required if name not in offered]
    if absent:
        columns = [name for name in offered if isinstance(offered[name], list) and name not in OWN_ARGUMENTS]
        raise UnusableCallError(
            f"it requires the argument {absent[0]!r}, which is no column of the data set "
            f"(columns: {', '.join(columns) or 'none besides the prompt'})"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    names = {p.name for p in named}
    return {name: value for name, value in offered.items() if name in names}


def read_scores(returned: Any, count: int) -> tuple[list[float | None], list[str]]:
    """``count`` scores out of what a reward function returned, and for each why it is missing ("" if it is not).

    Raises:
        UnusableCallError: it is not a sequence, or holds the wrong number of scores.
    """
    if returned is None or isinstance(returned, str | bytes | dict):
        raise UnusableCallError(f"it returned {type(returned).__name__} instead of a list of scores")
    try:
        values = list(returned)
    except TypeError:
        raise UnusableCallError(f"it returned one {type(returned).__name__} instead of a list of scores") from None
    if len(values) != count:
        raise UnusableCallError(f"it returned {len(values)} scores for {count} completions")
    scores = [finite_score(value) for value in values]
    reasons = [
        "" if score is not None else f"it returned {_shown(value)} for a completion"
        for score, value in zip(scores, values, strict=True)
    ]
    return scores, reasons


def call(function: RewardFunction, offer: Callable[[], dict[str, Any]]) -> Any:
    """What a function gives when called with what it accepts: an answer, a coroutine, or the exception that it raised.

    Arguments are made anew for each call: a function that edits its lists must not change the next one's.
    """
    try:
        return function(**accepted(function, offer()))
    except Exception as error:
        return error


def read_answer(answer: Any, count: int) -> tuple[list[float | None], list[str]]:
    """``count`` numbers out of what :func:`call` gave or its coroutine ended in, and for each why it is missing."""
    try:
        if isinstance(answer, BaseException):
            raise answer
        return read_scores(answer, count)
    except UnusableCallError as error:
        reason = str(error)
    except (Exception, asyncio.CancelledError) as error:
        reason = f"it raised {describe(error)}"
    return [None] * count, [reason] * count


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
