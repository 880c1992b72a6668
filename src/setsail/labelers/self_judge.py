"""The policy as its own judge: it is asked how good an answer is, and its distribution over the score is read."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from setsail.core import Candidates, Completion, ConfigError, Judgement, LabelerError, Prompt
from setsail.labelers.scores import check_scale, judgement_from_scores

logger = logging.getLogger("setsail")

NextLogProbs = Callable[[Sequence[Sequence[int]], Sequence[int]], Sequence[Sequence[float] | None]]
"""``next_log_probs(prompts, tokens)``: for each prompt (ids), log pi of each token as the next one, in nats; None for a
prompt that is longer than the model reads."""

RUBRIC = """\
Here are a question and an answer to it. Grade the answer by points that add up. Start from 0 and give one point for \
each of the following that is true of it:
- relevance: it is about what was asked, even if much is missing;
- coverage: it deals with a good part of the question, even if not with all of it;
- usefulness: it gives what the question is after at its core, so that the person who asked is helped;
- clarity: it is direct, complete and in good order, and speaks to the person who asked;
- expertise: it shows knowledge of the subject, without a sentence too many, and could hardly be better.

Question:
{question}

Answer:
{answer}

Write nothing but the score: the word "Score", a colon, and the number of points from 0 to 5."""

DIGITS = "012345"
LABEL = "Score:"
SEPARATORS = (" ", "", "\n")
"""What may stand between the label and the digit, best first: a tokenizer need not know each digit after each."""
ROUNDING = 4
"""Decimals of a score: closer than that, rounding inside a batch would decide which answer is the better one."""
SELDOM = 0.01
"""Mass on the digits below which the policy does not do what it is asked."""


class SelfJudge:
    """Grades each answer with the policy itself, by the mean of its distribution over the digits 0 to 5.

        s(x, y) = sum_k k pi(k | q(x, y)) / sum_k pi(k | q(x, y)),  k = 0..5,    P_ij = sigmoid((s_i - s_j) / scale)

    q(x, y) is :data:`RUBRIC` filled in with question and answer: one user turn of the chat template, if the tokenizer
    has one, and plain text otherwise, followed by ``Score:``. The digit is read as the next token, so nothing is
    sampled, and the score is a constant: no gradient passes through it. Each answer is graded alone, so the order of
    the candidates plays no part; equal answers are graded once and tie exactly.

    The digits' mass is renormalized: a policy that would rather say something else than a digit still gives a score,
    and a warning says how seldom it means it. A mass that is not a positive finite number, or a question and answer
    too long for the model, make the answer's score missing.

    Args:
        next_log_probs: gives the policy's next-token log-probs; batches as it likes.
        tokenizer: the policy's.
        template: further arguments of the chat template.
        hard: the higher score wins with certainty.
        scale: points that count as one nat of log-odds.
        name: who signs the judgements.

    Raises:
        ConfigError: a digit is not a single token of its own at the place of the score; an unusable scale.

    Source: arXiv 2401.10020, section 2.1 and its additive five-point prompt, in words of our own. The paper samples
    three judgements and takes the mean of the scores found in them; here it is the mean of the distribution itself.

    Example:
        >>> from setsail.core import Completion, Prompt
        >>> class Bytes:  # one token a byte
        ...     chat_template = None
        ...     def __call__(self, text, **options):
        ...         return {"input_ids": list(text.encode())}
        >>> def sure_of_three(prompts, tokens):
        ...     return [[0.0 if token == ord("3") else -math.inf for token in tokens] for _ in prompts]
        >>> group = Candidates(prompt=Prompt(row_id=0, text="Hi", token_ids=(1,)),
        ...                    completions=(Completion(token_ids=(2,), text="a"),))
        >>> SelfJudge(sure_of_three, Bytes()).label([group])[0].scores
        (3.0,)
    """

    def __init__(
        self,
        next_log_probs: NextLogProbs,
        tokenizer: Any,
        *,
        template: Mapping[str, Any] | None = None,
        hard: bool = False,
        scale: float = 1.0,
        name: str = "self",
    ) -> None:
        self._next_log_probs = next_log_probs
        self.tokenizer = tokenizer
        self.template = dict(template or {})
        self.hard = hard
        self.scale = check_scale(scale)
        self.name = name
        self._place, self._digits = place_of_score(tokenizer)
        self._warned = False

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """One judgement a group; its scores lie in [0, 5].

        Raises:
            LabelerError: ``next_log_probs`` did not return one list a prompt with one number a token.
        """
        asked = [[self._ids(group.prompt, one) for one in group.completions] for group in groups]
        distinct = list(dict.fromkeys(ids for row in asked for ids in row))
        graded = dict(zip(distinct, self._grades(distinct), strict=True))
        judgements = []
        for row in asked:
            grades = [graded[ids] for ids in row]
            reason = "; ".join(dict.fromkeys(why for _, why in grades if why))
            judgements.append(
                judgement_from_scores(
                    [score for score, _ in grades], labeler=self.name, hard=self.hard, scale=self.scale, reason=reason
                )
            )
        return judgements

    def _ids(self, prompt: Prompt, answer: Completion) -> tuple[int, ...]:
        """The token ids of q(x, y), up to where the digit follows."""
        asked = RUBRIC.format(question=_question(prompt), answer=answer.text)
        if getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True, **self.template
            )
            # The template has written every special token already.
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = _unclosed(self.tokenizer, asked + "\n\n")
        return (*ids, *self._place)

    def _grades(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[float | None, str]]:
        """Score of each prompt, or None and why."""
        rows = list(self._next_log_probs(prompts, self._digits)) if prompts else []
        widths = {len(row) for row in rows if row is not None} - {len(DIGITS)}
        if len(rows) != len(prompts) or widths:
            raise LabelerError(
                f"the policy's log-probs of {len(DIGITS)} digits were asked for after {len(prompts)} prompts, and "
                f"{len(rows)} rows came back{f', some of them with {sorted(widths)[0]} numbers' if widths else ''}"
            )
        self._warn_if_seldom([row for row in rows if row is not None])
        return [
            (None, f"question, answer and rubric have {len(ids)} tokens, more than the policy reads")
            if row is None
            else expected_score(row)
            for ids, row in zip(prompts, rows, strict=True)
        ]

    def _warn_if_seldom(self, rows: Sequence[Sequence[float]]) -> None:
        masses = [sum(math.exp(min(value, 0.0)) for value in row) for row in rows if all(map(_is_number, row))]
        if self._warned or not masses or sum(masses) >= SELDOM * len(masses):
            return
        self._warned = True
        logger.warning(
            "labeler %r: the policy answers the rubric with a digit from 0 to 5 only %.2g %% of the time, so its "
            "scores mean little; teach it to judge first, or give another labeler",
            self.name,
            100 * sum(masses) / len(masses),
        )


def expected_score(log_probs: Sequence[float]) -> tuple[float | None, str]:
    """The mean of the distribution over the digits that ``log_probs`` are the log masses of; None and why without one.

    >>> expected_score([-math.inf, -math.inf, math.log(0.1), math.log(0.3), -math.inf, -math.inf])
    (2.75, '')
    """
    top = max(log_probs) if all(map(_is_number, log_probs)) else math.nan
    if not math.isfinite(top):
        return None, "the policy's mass on the digits 0 to 5 is not a positive finite number"
    masses = [math.exp(value - top) for value in log_probs]
    return round(sum(digit * mass for digit, mass in enumerate(masses)) / sum(masses), ROUNDING), ""


def place_of_score(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of ``Score:`` as far as they do not depend on the digit, and the id of each digit that may follow.

    A tokenizer may join the space before a digit to it, to the label, or to neither; ids are split where it splits
    the text "Score: 3" itself.

    Raises:
        ConfigError: some digit is not a single token there.
    """
    for separator in SEPARATORS:
        whole = [_plain(tokenizer, LABEL + separator + digit) for digit in DIGITS]
        place = whole[0][:-1]
        digits = tuple(ids[-1] for ids in whole if ids and ids[:-1] == place)
        if len(set(digits)) == len(DIGITS):
            return place, digits
    shown = next((digit for digit in DIGITS if len(_plain(tokenizer, digit)) != 1), DIGITS[0])
    raise ConfigError(
        "the policy cannot be its own judge: its tokenizer has no single token for each of the digits 0 to 5 after "
        f"'{LABEL}' (see {shown!r}), so its distribution over the score cannot be read; give another labeler"
    )


def _plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"])


def _unclosed(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The ids of a text with the tokenizer's special tokens before it and none behind it."""
    ids = tuple(int(token) for token in tokenizer(text)["input_ids"])
    plain = _plain(tokenizer, text)
    return (*ids[: _start(ids, plain)], *plain)


def _start(ids: tuple[int, ...], plain: tuple[int, ...]) -> int:
    """Where ``plain`` begins in ``ids``; 0 where it does not occur."""
    return next((at for at in range(len(ids)) if ids[at : at + len(plain)] == plain), 0)


def _question(prompt: Prompt) -> str:
    """What was asked: the text, or every turn of a conversation that has more than one."""
    if prompt.messages is None or len(prompt.messages) == 1:
        return prompt.text
    return "\n\n".join(f"{message['role']}: {_content(message.get('content'))}" for message in prompt.messages)


def _content(content: Any) -> str:
    if isinstance(content, list | tuple):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")


def _is_number(value: float) -> bool:
    """Not NaN and not plus infinity; minus infinity is the log of mass 0."""
    return not math.isnan(value) and value != math.inf
