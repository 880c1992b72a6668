"""The records that flow: frozen, keyword-only, and what they derive."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest

from setsail.core import Candidates, Completion, Engine, Group, Judgement, Labeler, Prompt, Row, Sampling

PROMPT = Prompt(row_id=3, text="Why?", token_ids=(5, 6), columns={"topic": "ships"})
ANSWER = Completion(token_ids=(7, 8, 0), text="Because.")
RECORDS = [
    PROMPT,
    ANSWER,
    Row(prompt=PROMPT, chosen=ANSWER, rejected=ANSWER),
    Sampling(),
    Candidates(prompt=PROMPT, completions=(ANSWER, ANSWER)),
    Judgement(preference=((None, 0.7), (0.3, None)), scores=(1.0, None), labeler="judge"),
    Group(prompt=PROMPT, completions=(ANSWER, ANSWER), p=None, route="dpp", labeler="policy"),
]
each_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


@each_record
def test_a_record_cannot_be_changed(record: object) -> None:
    name = fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        setattr(record, name, None)


@each_record
def test_a_record_is_made_by_keyword(record: object) -> None:
    with pytest.raises(TypeError, match="positional"):
        type(record)(1, 2, 3, 4)


@each_record
def test_a_record_survives_copies_and_processes(record: object) -> None:
    assert copy.deepcopy(record) == record
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_length_counts_tokens_with_their_eos() -> None:
    assert ANSWER.length == 3
    assert Completion(token_ids=(), text="").length == 0


def test_an_answer_is_finished_and_unscored_unless_told() -> None:
    assert ANSWER.finished
    assert ANSWER.logp is None


def test_a_row_prefers_its_chosen_answer_unless_told() -> None:
    assert Row(prompt=PROMPT).p == 1.0
    assert Row(prompt=PROMPT).chosen is None


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.9}, {"top_k": 50}, {"top_p": 0.95}, {"min_p": 0.1}, {"repetition_penalty": 1.1}],
    ids=lambda change: next(iter(change)),
)
def test_any_reshaping_of_the_draws_is_not_the_policy(change: dict[str, float]) -> None:
    assert not Sampling(**change).is_policy  # type: ignore[arg-type]


def test_a_length_limit_does_not_reshape_the_draws() -> None:
    assert Sampling().is_policy
    assert Sampling(max_completion_length=7).is_policy
    assert Sampling(max_completion_length=7).as_dict()["max_completion_length"] == 7


def test_the_seams_are_structural() -> None:
    class Judge:
        name = "judge"

        def label(self, groups: object) -> list[Judgement]:
            return []

    assert isinstance(Judge(), Labeler)
    assert not isinstance(Judge(), Engine)
