"""Whole dialogues written as one string, in the form of HH-RLHF.

"\\n\\nHuman: ... \\n\\nAssistant: ... \\n\\nHuman: ... \\n\\nAssistant: ..."
"""

from __future__ import annotations

import re
from typing import Any

from setsail.data.faults import NO_ANSWER_TURN, PROMPTS_DIFFER, RowFault

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
_TURN = re.compile(r"(?=\n\n(?:Human|Assistant):)")


def is_dialogue(value: Any) -> bool:
    """Whether a value is a dialogue string: it asks as "Human:" and answers as "Assistant:".

    >>> is_dialogue("\\n\\nHuman: Hi.\\n\\nAssistant: Hello."), is_dialogue("Hello.")
    (True, False)
    """
    return isinstance(value, str) and HUMAN in f"\n\n{value.lstrip()}" and ASSISTANT in value


def split_dialogues(chosen: str, rejected: str) -> tuple[str, str, str]:
    """``(prompt, chosen answer, rejected answer)`` of two dialogues that answer the same prompt.

    Each dialogue is cut by itself at its last "\\n\\nAssistant:"; the prompt keeps that mark, the answer keeps the
    space after it. Where the prompts so found differ because one answer was written as several assistant turns,
    both are cut after the last turn they share.

    Raises:
        RowFault: a dialogue that does not end with the assistant, or two that answer different prompts.

    >>> split_dialogues("\\n\\nHuman: Hi.\\n\\nAssistant: Hello.", "\\n\\nHuman: Hi.\\n\\nAssistant: Go.")
    ('\\n\\nHuman: Hi.\\n\\nAssistant:', ' Hello.', ' Go.')
    """
    prompt, answer = _at_last_answer(chosen)
    other_prompt, other_answer = _at_last_answer(rejected)
    if prompt == other_prompt:
        return prompt, answer, other_answer
    return _at_shared_turns(chosen, rejected)


def _at_last_answer(dialogue: str) -> tuple[str, str]:
    before, mark, answer = dialogue.rpartition(ASSISTANT)
    if not mark or HUMAN in answer:
        raise RowFault(NO_ANSWER_TURN)
    return before + mark, answer


def _at_shared_turns(chosen: str, rejected: str) -> tuple[str, str, str]:
    sides = _TURN.split(chosen), _TURN.split(rejected)
    shared = 0
    while shared < min(map(len, sides)) and sides[0][shared] == sides[1][shared]:
        shared += 1
    rests = [turns[shared:] for turns in sides]
    # A human turn among what is left would be trained on as if the model had said it.
    if shared == 0 or not all(rest and all(turn.startswith(ASSISTANT) for turn in rest) for rest in rests):
        raise RowFault(PROMPTS_DIFFER)
    prompt = "".join(sides[0][:shared]) + ASSISTANT
    if HUMAN not in f"\n\n{prompt.lstrip()}":
        raise RowFault(PROMPTS_DIFFER)
    first, second = ("".join(rest).removeprefix(ASSISTANT) for rest in rests)
    return prompt, first, second
