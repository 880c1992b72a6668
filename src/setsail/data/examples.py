"""One example of a data set, before any tokenizer has seen it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from setsail.core import Message
from setsail.data.lists import ends

Text = str | tuple[Message, ...]
"""A prompt or an answer: plain text, or chat messages. The parts of one example are all of the same kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt, with the answers that the data hold for it.

    Attributes:
        row_id: names the example in random streams and in provenance; unique in its set. It is the 0-based
            index of the row in the source, except where one row may give several examples (``pairs="all"``, and
            single answers made of pairs or lists): there it is the 0-based index of the example.
        source_row: 0-based index of the row in the source. Messages to users say "row N" with N = index + 1.
        prompt: a string, fed to the policy as it is, or the messages of a conversation.
        chosen, rejected: answers of the same kind as the prompt: a pair; of a list its best and its worst; of a
            demonstration only ``chosen``; both None in a set of prompts and beside a single labeled answer.
        p: probability that ``chosen`` is preferred, in [0, 1].
        answers: every answer of a list, or the one labeled answer; empty otherwise.
        scores: one score an answer, higher is better; +1.0 and -1.0 for a desirable and an undesirable single answer.
        columns: every column of the row that is not one of the above.
    """

    row_id: int
    source_row: int
    prompt: Text
    chosen: Text | None = None
    rejected: Text | None = None
    p: float = 1.0
    answers: tuple[Text, ...] = ()
    scores: tuple[float, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_pair(self) -> bool:
        """Whether both answers of a pair are there."""
        return self.chosen is not None and self.rejected is not None

    @property
    def texts(self) -> tuple[Text | None, ...]:
        """Every answer once: those of a list or the single one, else ``(chosen, rejected)`` with None for neither."""
        return self.answers or (self.chosen, self.rejected)

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """Where ``chosen`` and ``rejected`` lie in ``texts``; None for one that is not there."""
        if not self.answers:
            return None if self.chosen is None else 0, None if self.rejected is None else 1
        chosen, rejected = (None if side is None else self.answers.index(side) for side in (self.chosen, self.rejected))
        return chosen, rejected

    def only(self, kept: Sequence[int]) -> Example | None:
        """The same list with those of its answers alone; None if nothing among them is better than anything else.

        ``chosen`` and ``rejected`` are then the best and the worst of those, and p is 1.
        """
        scores = tuple(self.scores[index] for index in kept)
        found = ends(scores)
        if found is None:
            return None
        answers = tuple(self.answers[index] for index in kept)
        best, worst = (answers[index] for index in found)
        return replace(self, chosen=best, rejected=worst, p=1.0, answers=answers, scores=scores)


def plain_text(text: Text) -> str:
    """The words of a prompt or an answer: the string itself, or the contents of its messages, a line each.

    >>> plain_text(({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}))
    'Hi.\\nHello.'
    """
    if isinstance(text, str):
        return text
    return "\n".join(content_text(message) for message in text)


def content_text(message: Message) -> str:
    """The words of one message; of a content in parts, the parts that are text."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def question(prompt: Text) -> str:
    """What was asked last: the string, or the content of the last user message.

    >>> question(({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}))
    'Hi.'
    """
    if isinstance(prompt, str):
        return prompt
    asked = [message for message in prompt if message.get("role") == "user"]
    return content_text((asked or list(prompt))[-1]) if prompt else ""


def canonical(text: Text | None) -> str:
    """A string that two texts share exactly when they say the same; the key for hashes and comparisons."""
    if text is None:
        return "null"
    # A value that is not JSON (an image, say) enters by its type: its repr may hold a memory address.
    return json.dumps(text, sort_keys=True, default=lambda value: type(value).__name__)
