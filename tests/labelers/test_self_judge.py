"""The policy as its own judge: what it is asked, what is read, and what is missing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from setsail.core import ConfigError, LabelerError
from setsail.labelers import MissingGuard, SelfJudge, resolve
from setsail.labelers.self_judge import RUBRIC, expected_score, place_of_score

from .conftest import group_of

Make = Callable[..., Any]


class Asked:
    """Stands for a policy: grades an answer by a table of masses, and remembers what it was asked."""

    def __init__(self, tokenizer: Any, masses: dict[str, Sequence[float]], longest: int = 10**6) -> None:
        self.tokenizer, self.masses, self.longest = tokenizer, masses, longest
        self.texts: list[str] = []
        self.calls = 0

    def __call__(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float] | None]:
        self.calls += 1
        assert [self.tokenizer.decode([token]).strip() for token in tokens] == list("012345")
        rows: list[list[float] | None] = []
        for ids in prompts:
            text = self.tokenizer.decode(list(ids))
            self.texts.append(text)
            answer = text.split("Answer:\n")[1].split("\n\nWrite nothing")[0]
            masses = self.masses[answer]
            rows.append([math.log(mass) if mass > 0 else -math.inf for mass in masses])
        return [None if len(ids) > self.longest else row for ids, row in zip(prompts, rows, strict=True)]


def sure(score: int) -> list[float]:
    return [float(digit == score) for digit in range(6)]


def test_a_score_is_the_mean_of_the_distribution_over_the_digits(make_tokenizer: Make) -> None:
    """The paper's mean of judgements 3, 4, 5 is 4; masses are renormalized, so what is said instead does not count."""
    tokenizer = make_tokenizer()
    masses = {"a": [0, 0, 0, 0.1, 0.1, 0.1], "b": [0.2, 0, 0, 0, 0, 0.6], "c": sure(2)}
    [judgement] = SelfJudge(Asked(tokenizer, masses), tokenizer).label([group_of("a", "b", "c")])
    assert judgement.scores == (4.0, 3.75, 2.0)
    assert judgement.labeler == "self"
    assert judgement.preference[0][2] == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-12)


@pytest.mark.parametrize(("hard", "scale", "p"), [(True, 1.0, 1.0), (False, 4.0, 1 / (1 + math.exp(-0.5)))])
def test_labels_are_soft_unless_told_otherwise(make_tokenizer: Make, hard: bool, scale: float, p: float) -> None:
    tokenizer = make_tokenizer()
    judge = SelfJudge(Asked(tokenizer, {"a": sure(3), "b": sure(1)}), tokenizer, hard=hard, scale=scale)
    assert judge.label([group_of("a", "b")])[0].preference[0][1] == pytest.approx(p, abs=1e-12)


def test_the_order_of_candidates_and_groups_plays_no_part(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    masses = {text: sure(score) for score, text in enumerate("abcdef")}
    judge = SelfJudge(Asked(tokenizer, masses), tokenizer)
    forward = judge.label([group_of(*"abc"), group_of(*"fed", prompt="other")])
    backward = judge.label([group_of(*"def", prompt="other"), group_of(*"cba")])
    assert forward[0].scores == backward[1].scores[::-1] == (0.0, 1.0, 2.0)  # type: ignore[index]
    assert forward[1].scores == backward[0].scores[::-1] == (5.0, 4.0, 3.0)  # type: ignore[index]


def test_equal_answers_are_asked_about_once_and_tie_exactly(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    policy = Asked(tokenizer, {"a": [0.1, 0.3, 0.2, 0.1, 0.2, 0.1], "b": sure(0)})
    [judgement] = SelfJudge(policy, tokenizer).label([group_of("a", "b", "a")])
    assert judgement.preference[0][2] == 0.5
    assert len(policy.texts) == 2
    assert policy.calls == 1


def test_scores_that_rounding_tells_apart_tie() -> None:
    """Four equal scores are no pair: a batch must not make one out of its last bits."""
    third = math.log(1 / 3)
    near = [third, third + 2e-7, third - 1e-7, -math.inf, -math.inf, -math.inf]
    assert expected_score(near) == expected_score([third] * 3 + [-math.inf] * 3) == (1.0, "")


def test_what_is_asked(make_tokenizer: Make) -> None:
    """Question and answer stand in the rubric, and the text ends where the digit follows."""
    tokenizer = make_tokenizer()
    policy = Asked(tokenizer, {"To the sea.": sure(3)})
    SelfJudge(policy, tokenizer).label([group_of("To the sea.", prompt="Where does it flow?")])
    [text] = policy.texts
    assert "Question:\nWhere does it flow?\n" in text
    assert text.endswith("from 0 to 5.\n\nScore: ")
    for criterion in ("relevance", "coverage", "usefulness", "clarity", "expertise"):
        assert f"- {criterion}:" in RUBRIC


def test_a_chat_template_writes_it_as_a_users_turn(make_tokenizer: Make) -> None:
    """Of a longer conversation every turn is shown; braces in a text are nothing to fill in."""
    tokenizer = make_tokenizer(chat=True)
    policy = Asked(tokenizer, {"{x}": sure(3)})
    asked = ({"role": "user", "content": "Hi {question}"}, {"role": "assistant", "content": "Yes?"},
             {"role": "user", "content": "Go on."})  # fmt: skip
    SelfJudge(policy, tokenizer).label([group_of("{x}", prompt="Go on.", messages=asked)])
    [text] = policy.texts
    assert text.startswith("<s>user: Here are a question and an answer")
    assert text.endswith("</s><s>assistant: Score: ")
    assert "user: Hi {question}\n\nassistant: Yes?\n\nuser: Go on." in text
    # The template has written the special tokens: the tokenizer adds none of its own.
    assert text.count("<s>") == 2


def test_answers_without_a_readable_mass_are_missing(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    policy = Asked(tokenizer, {"a": sure(3), "b": [0.0] * 6})
    [judgement] = SelfJudge(policy, tokenizer).label([group_of("a", "b")])
    assert judgement.scores == (3.0, None)
    assert judgement.preference[0][1] is None
    assert judgement.reason == "the policy's mass on the digits 0 to 5 is not a positive finite number"
    for broken in (math.nan, math.inf):
        assert expected_score([broken, *[-1.0] * 5])[0] is None


def test_what_is_too_long_to_read_is_missing_and_says_so(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    longest = len(tokenizer(RUBRIC)["input_ids"]) + 20
    long = "word " * 20
    policy = Asked(tokenizer, {"a": sure(3), long: sure(5)}, longest)
    [judgement] = SelfJudge(policy, tokenizer).label([group_of("a", long)])
    assert judgement.scores == (3.0, None)
    assert "tokens, more than the policy reads" in judgement.reason
    guard = MissingGuard(SelfJudge(policy, tokenizer))
    for _ in range(2):
        guard.label([group_of(long, long)])
    with pytest.raises(LabelerError, match=r"labeler 'self': 3 of 3 preferences are missing.*than the policy reads"):
        guard.label([group_of(long, long)])


def test_a_policy_that_seldom_answers_with_a_digit_is_reported_once(
    make_tokenizer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = make_tokenizer()
    judge = SelfJudge(Asked(tokenizer, {"a": [0, 0, 0, 0.002, 0, 0.002]}), tokenizer)
    with caplog.at_level(logging.WARNING, logger="setsail"):
        for _ in range(2):
            assert judge.label([group_of("a")])[0].scores == (4.0,)
    [record] = caplog.records
    assert "only 0.4 % of the time" in record.getMessage()


def test_a_policy_that_answers_with_digits_is_not(make_tokenizer: Make, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make_tokenizer()
    SelfJudge(Asked(tokenizer, {"a": [0, 0, 0, 0.2, 0, 0.2]}), tokenizer).label([group_of("a")])
    assert not caplog.records


class Splitting:
    """Byte tokens, with the merges of some texts: pairs of characters that become one token, or a digit that is two."""

    chat_template = None

    def __init__(self, merged: Sequence[str] = (), split: str = "") -> None:
        self.merged, self.split = list(merged), split

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        ids: list[int] = []
        while text:
            found = next((each for each in self.merged if text.startswith(each)), text[0])
            if found == self.split:
                ids += [500, 501]
            else:
                ids.append(1000 + self.merged.index(found) if found in self.merged else ord(found))
            text = text[len(found) :]
        return {"input_ids": ids}


def test_the_place_of_the_score_is_where_the_tokenizer_splits_it() -> None:
    """A tokenizer may keep the space apart, join it to every digit, or join it to some of them only."""
    label = tuple(map(ord, "Score:"))
    digits = tuple(map(ord, "012345"))
    assert place_of_score(Splitting()) == ((*label, ord(" ")), digits)
    assert place_of_score(Splitting([f" {digit}" for digit in range(6)])) == (label, tuple(range(1000, 1006)))
    assert place_of_score(Splitting([" 1", " 4"])) == (label, digits)


def test_a_tokenizer_without_a_token_for_each_digit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be its own judge: .* \(see '4'\).*give another labeler"):
        SelfJudge(lambda prompts, tokens: [], Splitting(split="4"))


def test_a_function_that_answers_otherwise_than_asked_is_an_error(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    for rows in ([], [[0.0] * 5]):
        with pytest.raises(LabelerError, match="6 digits were asked for after 1 prompts"):
            SelfJudge(lambda prompts, tokens, rows=rows: rows, tokenizer).label([group_of("a")])


def test_its_name_alone_is_no_labeler_without_a_trainer() -> None:
    with pytest.raises(ConfigError, match="a trainer also takes 'self', the policy under training"):
        resolve("self")


def test_nothing_to_label_asks_nothing(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer()
    policy = Asked(tokenizer, {})
    assert SelfJudge(policy, tokenizer).label([]) == []
    assert policy.calls == 0
