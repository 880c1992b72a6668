"""Sources and routes that make no sense are refused when they are made, by a sentence that says what to use instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from setsail.core import Sampling, SpecError
from setsail.methods import CATALOGUE, Route, Source, get, on_policy, on_policy_self_labeled, self_labeled_dataset
from setsail.methods.parts import CHOSEN, DATASET, DRAWN, GREEDY

POLICY, REFERENCE = Source(origin="policy"), Source(origin="reference")


def _route(**changes: object) -> Route:
    settings: dict[str, object] = {"candidates": DRAWN, "preference": "labeler", "weight": 0.1, **changes}
    return Route(name="x", **settings)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    # Sources.
    "unknown origin": (
        lambda: Source(origin="polcy"),
        "a source's origin must be one of chosen, rejected, policy, reference, opponent, mixture, got 'polcy'; did you "
        "mean 'policy'?",
    ),
    "share of no mixture": (
        lambda: Source(origin="policy", share=0.5),
        "a share of 0.5 belongs to a mixture, but this source's origin is 'policy'",
    ),
    "share nan": (
        lambda: Source(origin="mixture", share=float("nan")),
        "a mixture's share must be a finite number, got nan",
    ),
    "share inf": (lambda: Source(origin="mixture", share=float("inf")), "must be a finite number, got inf"),
    "two chosen answers": (lambda: Source(origin="chosen", count=2), "a data set row has one chosen answer, not 2"),
    "any number of rejected answers": (
        lambda: Source(origin="rejected", count=None),
        "a data set row has one rejected answer, not None",
    ),
    "no candidate": (lambda: Source(origin="policy", count=0), "a source gives at least 1 candidate, not 0"),
    "sampling of a given answer": (
        lambda: Source(origin="chosen", sampling=GREEDY),
        "nothing is drawn from the data set's chosen answer, so it takes no sampling settings",
    ),
    "unknown sampling": (
        lambda: Source(origin="policy", sampling=(("temprature", 2.0),)),
        "a source's sampling settings are max_completion_length, temperature, top_k, top_p, min_p, repetition_penalty, "
        "got 'temprature'; did you mean 'temperature'?",
    ),
    # Numbers of a route.
    "negative coefficient": (
        lambda: self_labeled_dataset(weight=0.1, coefficient=-1.0),
        "route 'ddp': coefficient must be a number >= 0, got -1.0",
    ),
    "negative correction": (
        lambda: on_policy(weight=0.1, correction=-0.3),
        "route 'dpr': correction must be a number >= 0, got -0.3",
    ),
    "infinite correction": (
        lambda: on_policy(weight=0.1, correction=float("inf")),
        "route 'dpr': correction must be a number >= 0, got inf",
    ),
    "nothing acquired": (lambda: _route(acquire=0.0), "route 'x': acquire must be a share in (0, 1], got 0.0"),
    "more than all acquired": (lambda: _route(acquire=1.5), "acquire must be a share in (0, 1], got 1.5"),
    # Words of a route.
    "unknown preference": (
        lambda: _route(preference="labelers"),
        "preference must be one of dataset, policy, labeler, first, implicit, got 'labelers'; did you mean 'labeler'?",
    ),
    "unknown labels": (
        lambda: get("sail-ddp").configured(labels="sample"),
        "labels must be one of averaged, sampled, got 'sample'; did you mean 'sampled'?",
    ),
    "unknown label": (
        lambda: _route(label="win_rates"),
        "label must be one of preference, hard, win-rates, got 'win_rates'; did you mean 'win-rates'?",
    ),
    "unknown values": (
        lambda: _route(values="score"),
        "values must be one of scores, win-rates, last, got 'score'; did you mean 'scores'?",
    ),
    "unknown pairing": (
        lambda: get("sail-dpr").configured(pairing="best_worst"),
        "there is no pairing rule 'best_worst'; did you mean 'best-worst'?",
    ),
    "no candidates": (lambda: _route(candidates=()), "route 'x' has no candidates; name at least one source"),
    # What does not go together.
    "offline pairs as a route": (
        lambda: _route(candidates=DATASET, preference="dataset"),
        "are the offline pairs, which need no route; leave it out",
    ),
    "no preference between fresh answers": (
        lambda: _route(preference="dataset"),
        "the data set holds no preference between completions that are drawn; use preference='labeler' "
        "(a reward) or 'policy' (self-labeling)",
    ),
    "no preference with one fresh answer": (
        lambda: _route(candidates=(CHOSEN, POLICY), preference="dataset"),
        "the data set holds no preference between completions that are drawn",
    ),
    "a ranking of what is better by construction": (
        lambda: get("spin").configured(pairing="best-worst"),
        "its first candidate is better by construction, so there is nothing to rank; use pairing='first-two'",
    ),
    "labels saved where there are none": (
        lambda: _route(preference="policy", acquire=0.5),
        "acquire=0.5 saves calls of a labeler on completions of the policy; this route has none",
    ),
    "labels saved on completions of another": (
        lambda: _route(candidates=(POLICY, REFERENCE), acquire=0.5),
        "acquire=0.5 saves calls of a labeler on completions of the policy; this route has none",
    ),
    "a correction on acquired pairs": (
        lambda: get("apl").configured(corrections={"dpr": 0.1}),
        "the online correction needs independent draws, but acquire=0.5 keeps those of large margin; set acquire to 1 "
        "or the correction to 0",
    ),
    "a correction on reshaped draws": (
        lambda: _route(candidates=(Source(origin="policy", count=2, sampling=GREEDY),), correction=0.1),
        "a correction of 0.1 belongs to completions drawn from the policy, but these come from 2 x greedy policy",
    ),
    "a correction on draws of the reference": (
        lambda: _route(candidates=(POLICY, REFERENCE), correction=0.1),
        "but these come from policy + reference; set the correction to 0 or draw all of them from the policy",
    ),
    "self-labels chosen by score": (
        lambda: replace(on_policy_self_labeled(weight=0.1, coefficient=0.1), pairing="tilted"),
        "tilted pairs are chosen by score, but the policy labels its own pairs without scores; use pairing='first-two'",
    ),
    "a hard label of the policy's own": (
        lambda: replace(on_policy_self_labeled(weight=0.1, coefficient=0.1), label="hard"),
        "label='hard' is read off a judgement of the candidates, but with preference='policy' there is none; use "
        "label='preference'",
    ),
    "win rates by construction": (
        lambda: _route(candidates=(CHOSEN, POLICY), preference="first", label="win-rates"),
        "label='win-rates' is read off a judgement of the candidates, but with preference='first' there is none",
    ),
    # Too few to compare.
    "one candidate": (
        lambda: _route(candidates=(POLICY,)),
        "route 'x': first-two pairs need 2 candidates, but its sources give 1; name another source, or leave a count "
        "open (count=None)",
    ),
    "one candidate and a yardstick": (
        lambda: _route(candidates=(POLICY, POLICY), values="last"),
        "first-two pairs need 2 candidates besides the one that values='last' compares them with, but its sources give "
        "1",
    ),
    "a group of one": (lambda: _route(candidates=(POLICY,), pairing="all"), "all pairs need 2 candidates"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_route_without_meaning_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(SpecError, match=re.escape(message)):
        make()


def test_one_candidate_is_enough_to_imitate() -> None:
    assert _route(candidates=(POLICY,), pairing="best").number_of_candidates(8) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (POLICY, "policy"),
        (Source(origin="policy", count=None), "n x policy"),
        (Source(origin="policy", count=4), "4 x policy"),
        (Source(origin="mixture", share=-0.5), "mixture -0.5"),
        (Source(origin="reference", sampling=GREEDY), "greedy reference"),
        (CHOSEN, "chosen"),
    ],
)
def test_a_source_in_words(source: Source, words: str) -> None:
    assert str(source) == words
    assert source.is_drawn == (words != "chosen")


def test_a_source_changes_only_its_own_settings() -> None:
    run = Sampling(max_completion_length=7, temperature=0.8, top_p=0.9)
    source = Source(origin="policy", sampling=(("temperature", 2.0), ("top_k", 10)))
    assert source.settings(run) == replace(run, temperature=2.0, top_k=10)
    assert POLICY.settings(run) == run


@pytest.mark.parametrize(
    ("name", "words", "candidates", "on_policy"),
    [
        ("sail-ddp", "dataset", 2, False),
        ("online-dpo", "policy", 2, True),
        ("apl", "policy", 2, True),
        ("raft", "policy", 8, True),
        ("spin", "chosen + policy", 2, False),
        ("rs-dpo", "n x reference", 16, False),
        ("xpo", "policy + reference", 2, False),
        ("selm", "greedy reference + chosen + rejected", 3, False),
        ("nash-md", "policy + mixture 0.125", 2, False),
        ("nash-ema", "policy + opponent", 2, False),
        ("egpo", "2 x policy + policy", 3, False),
    ],
)
def test_where_the_candidates_of_a_method_come_from(name: str, words: str, candidates: int, on_policy: bool) -> None:
    method, route = get(name), get(name).routes[0]
    assert route.origins == words
    assert route.number_of_candidates(method.generations) == candidates
    assert route.is_on_policy == on_policy
    assert route.needs_dataset_answers == ("chosen" in words or words == "dataset")


def test_the_two_halves_of_a_sampler_mixture() -> None:
    assert [route.origins for route in get("samplers-mix-p").routes] == [
        "policy + policy",
        "mixture -0.5 + mixture 0.5",
    ]


def test_every_route_of_the_catalogue_has_enough_to_compare() -> None:
    for method in CATALOGUE.values():
        for route in method.routes:
            compared = route.number_of_candidates(method.generations) - (route.values == "last")
            assert compared >= (route.rule.size or 2)
