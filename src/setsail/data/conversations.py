"""Chat messages: reading them from a row, and finding where a conversation's answer begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from setsail.core import Message
from setsail.data.examples import Text, content_text
from setsail.data.faults import (
    ANSWERS_DIFFER,
    EMPTY_ANSWER,
    EMPTY_PROMPT,
    NO_ANSWER_TURN,
    PROMPT_NOT_OPEN,
    PROMPTS_DIFFER,
    SAME_ANSWERS,
    RowFault,
    ShapeFault,
)

Messages = tuple[Message, ...]

_ANSWERING = ("assistant", "tool")


def read_text(value: Any, column: str) -> Text | None:
    """A column's value as text: a string, messages, or None where there is nothing.

    Raises:
        ShapeFault: the value is neither a string nor a list of messages.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return (_message(value, column),)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(_message(item, column) for item in value)
    raise ShapeFault(
        f"column {column!r} holds a {type(value).__name__} where a string or a list of messages "
        '[{"role": "user", "content": "..."}, ...] is expected'
    )


def _message(value: Any, column: str) -> Message:
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str) or "content" not in value:
        seen = f"the keys {', '.join(map(str, value))}" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise ShapeFault(
            f'column {column!r} holds a list whose items are not messages {{"role": "user", "content": "..."}}: '
            f"one of them is {seen}"
        )
    if not isinstance(value["content"], str | list | tuple | None):
        raise ShapeFault(f"column {column!r} holds a message whose content is a {type(value['content']).__name__}")
    # Arrow gives every message of a column the same keys; the ones that are None were not written by anybody.
    return {key: item for key, item in value.items() if item is not None or key == "content"}


def is_blank(text: Text | None) -> bool:
    """Whether there is nothing in it but white space."""
    if text is None or isinstance(text, str):
        return not (text or "").strip()
    return not any(content_text(message).strip() or message.get("tool_calls") for message in text)


def as_question(prompt: Text) -> Messages:
    """A prompt as messages; a string becomes one user message."""
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt


def as_answer(answer: Text) -> Messages:
    """An answer as messages; a string becomes one assistant message."""
    return ({"role": "assistant", "content": answer},) if isinstance(answer, str) else answer


def open_prompt(prompt: Text | None) -> Text:
    """The prompt, if there is one and it waits for an answer.

    Raises:
        RowFault: it is empty, or its last message is the assistant's.
    """
    if prompt is None or is_blank(prompt):
        raise RowFault(EMPTY_PROMPT)
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        raise RowFault(PROMPT_NOT_OPEN)
    return prompt


def check_answers(prompt: Text, *answers: Text | None) -> tuple[Text, ...]:
    """The answers, if each can be learnt from.

    Raises:
        RowFault: one is empty, or a conversation's answer is not the assistant's.
    """
    sound = tuple(answer for answer in answers if answer is not None and not is_blank(answer))
    if len(sound) < len(answers):
        raise RowFault(EMPTY_ANSWER, prompt)
    if not all(isinstance(answer, str) or _is_answer(answer) for answer in sound):
        raise RowFault(NO_ANSWER_TURN, prompt)
    return sound


def check_pair(prompt: Text, chosen: Text | None, rejected: Text | None) -> tuple[Text, Text]:
    """Both answers, if they can be compared.

    Raises:
        RowFault: one cannot be learnt from, or they are equal.
    """
    first, second = check_answers(prompt, chosen, rejected)
    if first == second:
        raise RowFault(SAME_ANSWERS, prompt)
    return first, second


def _is_answer(messages: Messages) -> bool:
    roles = [message["role"] for message in messages]
    return all(role in _ANSWERING for role in roles) and roles[0] == roles[-1] == "assistant"


def without_prompt(prompt: Messages, answer: Messages) -> Messages:
    """The answer alone, where it was written as the whole conversation."""
    return answer[len(prompt) :] if answer[: len(prompt)] == prompt else answer


def starts_with_prompt(answer: Text | None) -> bool:
    """Whether an answer is a whole conversation, its prompt included."""
    return isinstance(answer, tuple) and bool(answer) and answer[0]["role"] not in _ANSWERING


def settle(given: Text | None, answers: Sequence[Text | None]) -> tuple[Text, tuple[Text, ...]]:
    """``(prompt, answers)`` of one kind, all strings or all messages, with nothing of the prompt in the answers.

    Where every answer is a whole conversation, as in UltraFeedback binarized, a prompt given as messages must be
    theirs, and one given as a string gives way to what they share.

    Raises:
        RowFault: no sound prompt, an answer that is not there, or whole conversations with different prompts.
    """
    if answers and all(starts_with_prompt(answer) for answer in answers):
        wholes = [as_answer(answer or ()) for answer in answers]
        if isinstance(given, str) or not given:
            return split_shared(*wholes)
        prompt = open_prompt(given)
        cut = tuple(without_prompt(given, whole) for whole in wholes)
        if any(starts_with_prompt(answer) for answer in cut):
            raise RowFault(PROMPTS_DIFFER if len(cut) == 2 else ANSWERS_DIFFER)
        return prompt, cut
    prompt = open_prompt(given)
    there = tuple(answer for answer in answers if answer is not None)
    if len(there) < len(answers):
        raise RowFault(EMPTY_ANSWER, prompt)
    if all(isinstance(text, str) for text in (prompt, *there)):
        return prompt, there
    return as_question(prompt), tuple(as_answer(answer) for answer in there)


def split_shared(*wholes: Messages) -> tuple[Messages, tuple[Messages, ...]]:
    """``(prompt, answers)`` of conversations that begin alike.

    The prompt is the longest run of shared messages that does not end with the assistant. Of one conversation it is
    everything before the assistant's last turns.

    Raises:
        RowFault: the conversations share no prompt, or part before the last question.

    >>> asked, said = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}
    >>> prompt, [answer] = split_shared((asked, said))
    >>> prompt == (asked,), answer == (said,)
    (True, True)
    """
    if not all(wholes):
        raise RowFault(EMPTY_ANSWER)
    shared = 0
    while all(shared < len(whole) and whole[shared] == wholes[0][shared] for whole in wholes):
        shared += 1
    while shared and wholes[0][shared - 1]["role"] in _ANSWERING:
        shared -= 1
    prompt, answers = wholes[0][:shared], tuple(whole[shared:] for whole in wholes)
    for whole, answer in zip(wholes, answers, strict=True):
        if whole[-1]["role"] != "assistant":
            raise RowFault(NO_ANSWER_TURN, prompt or None)
        if not prompt or not _is_answer(answer):
            one = NO_ANSWER_TURN if prompt else EMPTY_PROMPT
            raise RowFault({1: one, 2: PROMPTS_DIFFER}.get(len(wholes), ANSWERS_DIFFER))
    open_prompt(prompt)
    return prompt, answers
