"""Forms, facts and parameters of objectives that do not fit are refused when a method or a config is made."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from setsail import SailConfig
from setsail.core import ConfigError, SpecError
from setsail.methods import Method, get, on_policy, route_loss
from setsail.methods.facts import FACTS
from setsail.objectives import GroupLogProbs, kto

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "lists of a pairwise objective": (
        lambda: get("dpo").with_parts(form="lists"),
        "dpo: dpo compares pairs, but its data set rows are to be lists; use form='pairs'",
    ),
    "single answers of a pairwise objective": (
        lambda: get("simpo").with_parts(form="singles"),
        "simpo compares pairs, but its data set rows are to be singles",
    ),
    "an unknown form": (
        lambda: get("lipo").with_parts(form="list"),
        "lipo: form must be one of pairs, lists, singles, got 'list'; did you mean 'lists'?",
    ),
    "an unknown fact": (
        lambda: get("bco").with_parts(facts={"shift": "middle"}),
        "bco: the fact shift='middle' is not one that bco takes and training knows; it knows sampling, batch-mean, "
        "group-mean, mismatched, midpoint",
    ),
    "a fact of no argument": (
        lambda: get("rloo").with_parts(facts={"baseline": "batch-mean"}),
        "the fact baseline='batch-mean' is not one that rloo takes",
    ),
    "a fact in place of log-probs": (
        lambda: get("rloo").with_parts(facts={"values": "sampling"}),
        "the fact values='sampling' is not one that rloo takes",
    ),
    "a fact that a pairwise objective would not get": (
        lambda: get("simpo").with_parts(facts={"gamma": "midpoint"}, parameters={"beta": 2.5}),
        "the fact gamma='midpoint' is not one that simpo takes",
    ),
    "a fact that is given as well": (
        lambda: get("bco").configured(parameters={"shift": 0.1}),
        "bco: its objective bco takes no 'shift'; it takes beta",
    ),
    "no reference point": (
        lambda: get("kto").with_parts(facts={}),
        "kto: kto cannot do without reference_point; give it as a parameter, or name the fact that it is in facts",
    ),
    "an objective whose number nobody gives": (
        lambda: get("lipo").with_parts(objective=kto, parameters={"beta": 0.1}),
        "kto cannot do without reference_point",
    ),
    "a parameter of another objective": (
        lambda: get("simpo").configured(parameters={"gama": 0.3}),
        "simpo: its objective simpo takes no 'gama'; it takes beta, gamma",
    ),
    "a word for a number": (
        lambda: get("simpo").configured(parameters={"gamma": "high"}),
        "simpo: gamma of simpo must be a number, such as 0.5, got 'high'",
    ),
    "a word for beta": (
        lambda: get("dpo").configured(parameters={"beta": "high"}),
        "dpo: beta of dpo must be a number, such as 0.1, got 'high'",
    ),
    "a switch for a number": (
        lambda: get("exo").configured(parameters={"label_smoothing": True}),
        "label_smoothing of exo_pair must be a number, such as 0.001, got True",
    ),
    "a number for a switch": (
        lambda: get("p3o").configured(parameters={"joint": 2}),
        "joint of p3o must be true or false, such as False, got 2",
    ),
    "a number for a word": (
        lambda: get("f-dpo").configured(parameters={"divergence": 2}),
        "divergence of f_dpo must be a word, such as 'reverse_kl', got 2",
    ),
    "beta of none": (lambda: get("dpo").configured(parameters={"beta": None}), "beta must be positive, got None"),
    "a negative beta over groups": (
        lambda: get("rloo").configured(parameters={"beta": -0.1}),
        "beta must be positive, got -0.1",
    ),
    "a filter of pairs": (
        lambda: get("online-dpo").configured(pairing="rank-filter:best-random"),
        "dpo compares pairs, but pairing 'rank-filter:best-random' of route 'dpr' does not give pairs",
    ),
    "each answer of pairs": (lambda: get("online-dpo").configured(pairing="each"), "pairing 'each' of route 'dpr'"),
    "a filter without a name": (
        lambda: get("pf-reinforce").configured(pairing="rank-filter"),
        "there is no pairing rule 'rank-filter'; did you mean 'rank-filter:best-",
    ),
    "a filter that is unknown": (
        lambda: get("pf-reinforce").configured(pairing="rank-filter:worst"),
        "there is no pairing rule 'rank-filter:worst'; did you mean 'rank-filter:best-worst'?",
    ),
    "a filter of labels of one's own": (
        lambda: get("sail-dpp").configured(pairing="rank-filter:best-worst"),
        "rank-filter:best-worst pairs are chosen by score, but the policy labels its own pairs without scores",
    ),
    "a policy gradient on the data set": (
        lambda: get("rloo").with_parts(routes=(on_policy(weight=0.5, pairing="all"),), offline=True),
        "rloo is a policy gradient on fresh completions, so offline pairs cannot be combined with it",
    ),
    "a policy gradient on old answers": (
        lambda: get("grpo").configured(staleness=3),
        "completions of up to 3 steps ago (staleness) cannot be combined with it",
    ),
    "a policy gradient on the best alone": (
        lambda: get("rloo").configured(pairing="best"),
        "pairs that are chosen (pairing, acquire) cannot be combined with it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parts_of_the_field_that_do_not_fit_are_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(SpecError, match=re.escape(message)):
        make()


def test_what_fits_is_accepted() -> None:
    """A filter for another policy gradient, a number in place of a fact, none where an objective knows none."""
    assert get("reinforce").configured(pairing="rank-filter:best-worst", generations=5).routes[0].rule.as_drawn
    given = get("kto").with_parts(facts={}, parameters={"beta": 0.1, "reference_point": 0.5})
    assert given.parameters["reference_point"] == 0.5
    assert get("p3o").configured(parameters={"clip": None}).parameters["clip"] is None
    assert get("a-lol").beta == 1.0
    assert get("a-lol").parameters["beta"] == 0.0
    for name, fact in (("a-lol", "batch-mean"), ("a-lol", "group-mean")):
        assert get(name).with_parts(facts={"baseline": fact}).facts == {"baseline": fact}


def test_every_fact_is_one_that_some_method_asks_for() -> None:
    asked = {fact for name in ("reinforce", "grpo", "a-lol", "kto", "bco") for fact in get(name).facts.values()}
    assert asked == set(FACTS)


def test_facts_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        get("kto").facts["reference_point"] = "midpoint"  # type: ignore[index]


def test_a_loss_without_its_fact_is_refused() -> None:
    logps = GroupLogProbs(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="kto asks for reference_point; give them in facts"):
        route_loss(get("kto"), None, logps, values=torch.ones(2, 1))


def test_a_fact_reaches_its_objective() -> None:
    logps, marks = GroupLogProbs(torch.tensor([[1.0]]), torch.tensor([[0.0]])), torch.ones(1, 1)
    at = {
        point: route_loss(get("kto"), None, logps, values=marks, facts={"reference_point": torch.tensor(point)}).value
        for point in (0.0, 1.0)
    }
    assert at[1.0].item() == 0.5
    assert at[0.0].item() < 0.5


# Settings of a run.


def _config(**settings: object) -> Method:
    return SailConfig(output_dir="nowhere", use_cpu=True, report_to="none", **settings).resolved_method()


@pytest.mark.parametrize(
    "given",
    [{"gamma": 0.3, "beta": 2.0}, "gamma=0.3,beta=2.0", "gamma = 0.3; beta = 2.0", '{"gamma": 0.3, "beta": 2.0}'],
)
def test_parameters_of_an_objective_are_read_from_text(given: object) -> None:
    method = _config(method="simpo", objective_parameters=given)
    assert method.parameters == {"beta": 2.0, "gamma": 0.3}
    assert method.modified == ("parameters",)


def test_words_switches_and_nothing_are_read_as_such() -> None:
    method = _config(method="f-dpo", objective_parameters="divergence=alpha,alpha=0.25")
    assert (method.parameters["divergence"], method.parameters["alpha"]) == ("alpha", 0.25)
    method = _config(method="p3o", objective_parameters="joint=true,clip=null")
    assert (method.parameters["joint"], method.parameters["clip"]) == (True, None)


def test_a_flag_of_its_own_wins_over_the_text() -> None:
    assert _config(method="simpo", objective_parameters="beta=2.0", beta=3.0).beta == 3.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gamma", "objective_parameters must be a value per name, like 'gamma=0.3,joint=true', got 'gamma'"),
        ("gamma=0.3,1", "objective_parameters must be a value per name"),
        ('{"gamma": 0.3', "objective_parameters must be a value per name"),
        ('{"gamma"}', "objective_parameters must be a value per name"),
        ("gama=0.3", "simpo: its objective simpo takes no 'gama'; it takes beta, gamma"),
        ({"tau": 0.3}, "simpo: its objective simpo takes no 'tau'; it takes beta, gamma"),
        ("gamma=high", "gamma of simpo must be a number, such as 0.5, got 'high'"),
        ("beta=", "beta of simpo must be a number"),
        ("gamma=[1]", "gamma of simpo must be a number, such as 0.5, got [1]"),
        (["gamma=0.3"], "objective_parameters must be a value per name"),
        (0.3, "objective_parameters must be a value per name"),
    ],
)
def test_settings_of_an_objective_that_cannot_be_read_are_refused(given: object, words: str) -> None:
    with pytest.raises((ConfigError, SpecError), match=re.escape(words)):
        _config(method="simpo", objective_parameters=given)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_one_answer_a_prompt_leaves_nothing_to_compare(name: str) -> None:
    with pytest.raises((ConfigError, SpecError), match="num_generations=1 leaves 1 candidate"):
        _config(method=name, num_generations=1)
