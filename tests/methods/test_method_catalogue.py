"""What every method of the catalogue promises."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from offline_batches import facts, offline

from setsail import lab
from setsail import objectives as o
from setsail.core import ConfigError
from setsail.methods import CATALOGUE, Method, get, names, route_loss
from setsail.objectives import dpo, ipo, likelihood, nash_policy_gradient, online_ipo, slic, sppo
from setsail.reference import every

each_method = pytest.mark.parametrize("name", CATALOGUE)
PRESETS = [(name, preset) for name, method in CATALOGUE.items() for preset in method.presets]
FRESH_PAIRS = {"oracle-robust", "online-dpo", "online-ipo", "oaif", "oaif-ipo", "oaif-slic", "apl", "salsa"}
SAMPLERS = {"samplers-mix-r", "samplers-mix-p", "rs-dpo", "raft", "superhf", "xpo"}
ROUNDS = {"iterative-dpo", "rlhf-workflow", "self-rewarding", "apo-accelerated"}
GAMES = {"sppo", "dno", "inpo", "nash-md", "nash-ema", "egpo"}
GRADIENTS = {"reinforce", "rloo", "grpo", "p3o", "copg", "f-dpg", "pf-reinforce"}
PROMPTS_ALONE = FRESH_PAIRS | SAMPLERS | ROUNDS | GAMES | GRADIENTS | {"best-of-n"}
PAIRS = {
    "cdpo": dpo, "rdpo": o.robust_dpo, "f-dpo": o.f_dpo, "dpo-gamma": o.dpo_gamma, "dpo-positive": o.dpo_positive,
    "dpo-length": o.length_regularized_dpo, "dpo-per-token": o.length_normalized_dpo, "cpl": o.cpl, "exo": o.exo_pair,
    "discopop": o.discopop, "nca": o.nca_pair, "apo-zero": o.apo_zero, "apo-down": o.apo_down,
    "sppo-hard": o.sppo_hard, "rpo": dpo, "rpo-per-token": dpo, "simpo": o.simpo, "cpo": o.cpo, "orpo": o.orpo,
    "asft": o.asft, "slic-hf": o.slic_hf,
}  # fmt: skip
LISTS = {
    "pl-dpo": o.plackett_luce_dpo, "robust-listwise": o.robust_listwise, "lipo": o.lipo, "rank-net": o.rank_net,
    "list-net": o.list_net, "pro": o.pro, "rrhf": o.rrhf, "a-lol": o.a_lol,
}  # fmt: skip
SINGLES = {"kto": o.kto, "bco": o.bco}
OFFLINE = {"dpo", "ipo", "slic", "sail-ddp", "dpo-margin", *PAIRS, *LISTS, *SINGLES}
NO_LABELER = OFFLINE | {"sail-dpp", "dice", "spin"}
OF_ANOTHER_OBJECTIVE = {
    "inpo": ipo,
    "raft": likelihood,
    "superhf": likelihood,
    "sppo": sppo,
    "nash-md": nash_policy_gradient,
    "nash-ema": nash_policy_gradient,
    "egpo": online_ipo,
    "dpo-margin": o.margin_dpo,
    "best-of-n": likelihood,
    "pf-reinforce": o.reinforce,
    **{name: getattr(o, name.replace("-", "_")) for name in GRADIENTS - {"pf-reinforce"}},
    **PAIRS,
    **LISTS,
    **SINGLES,
}


def test_names_are_those_of_the_catalogue() -> None:
    assert names() == tuple(CATALOGUE)
    assert len(names()) >= 76


@each_method
def test_a_method_says_what_it_is(name: str) -> None:
    method = get(name)
    assert method.name == name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    for text in (method.summary, method.equation):
        assert text.strip() == text
        assert len(text) > 10
    assert re.match(r"arXiv \d{4}\.\d{5}", method.paper)
    assert all(len(deviation) > 10 for deviation in method.deviations)
    assert method.modified == ()


def test_summaries_are_distinct() -> None:
    summaries = [method.summary for method in CATALOGUE.values()]
    assert len(set(summaries)) == len(summaries)


@each_method
def test_the_weights_of_the_routes_and_the_offline_part_sum_to_one(name: str) -> None:
    method = get(name)
    total = method.offline_weight + sum(route.weight for route in method.active_routes)
    assert total == pytest.approx(1, abs=1e-12)


@each_method
def test_the_loss_of_every_route_is_finite_with_a_finite_gradient(name: str) -> None:
    policy, world = lab.token_world()
    method = get(name).configured(generations=2)
    world = replace(world, opponent=policy.frozen() if method.opponent is not None else None)
    losses = []
    if method.offline:
        logps, p, values = offline(method, policy, world)
        losses = [route_loss(method, None, logps, p, values, facts(method, logps, values))]
    for route in method.routes:
        for groups in lab.route_groups(method, route, policy.frozen(), world):
            logps = groups.log_probs(policy, world.reference)
            known = facts(method, logps, groups.values)
            losses.append(route_loss(method, route, logps, groups.p, groups.values, known))
            assert losses[-1].surrogate.shape == losses[-1].value.shape == groups.weight.shape
    assert losses
    for loss in losses:
        assert torch.isfinite(loss.surrogate).all()
        slope = lab.gradient(loss.surrogate.sum(), policy)
        assert torch.isfinite(slope).all()
        assert slope.abs().max().item() > 0


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_applies_and_is_remembered(name: str, preset: str) -> None:
    method = get(name).preset(preset)
    assert method.modified == (f"preset {preset}",)
    settings = get(name).presets[preset]
    for attribute, key in (("weight", "weights"), ("coefficient", "coefficients"), ("correction", "corrections")):
        for route in method.routes:
            wanted = settings.get(key, {}).get(route.name, getattr(_route(get(name), route.name), attribute))
            assert getattr(route, attribute) == wanted


def _route(method: Method, name: str):  # type: ignore[no-untyped-def]
    return next(route for route in method.routes if route.name == name)


def test_the_published_settings_are_those_of_the_paper() -> None:
    """arXiv 2406.15567: DDP 0.4 and 0.2, DPP 0.3 and 0.2, DPR 0.3 and 0.3."""
    assert {"sail-ddp", "sail-dpp", "sail-dpr"} <= {name for name, preset in PRESETS if preset == "published"}
    ddp, dpp, dpr = (get(name).preset("published").routes[0] for name in ("sail-ddp", "sail-dpp", "sail-dpr"))
    assert (ddp.weight, ddp.coefficient, ddp.correction) == (0.4, 0.2, 0.0)
    assert (dpp.weight, dpp.coefficient, dpp.correction) == (0.3, 0.2, 0.2)
    assert (dpr.weight, dpr.coefficient, dpr.correction) == (0.3, 1.0, 0.3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sail-ddp", [("ddp", 0.4, 0.2)]),
        ("sail-dpp", [("dpp", 0.3, 0.2)]),
        ("sail-dpr", [("dpr", 0.3, 1.0)]),
        ("sail-mix", [("ddp", 0.2, 0.2), ("dpp", 0.15, 0.2), ("dpr", 0.15, 1.0)]),
        ("online-dpo", [("dpr", 1.0, 1.0)]),
        ("samplers-mix-r", [("uniform", 0.5, 1.0), ("tilted", 0.5, 1.0)]),
        ("samplers-mix-p", [("uniform", 0.5, 1.0), ("tilted", 0.5, 1.0)]),
        ("dice", [("implicit", 0.5, 1.0)]),
        ("spin", [("spin", 1.0, 1.0)]),
        ("rs-dpo", [("selected", 1.0, 1.0)]),
        ("nash-md", [("online", 1.0, 1.0)]),
        ("dpo", []),
    ],
)
def test_the_vetted_weights_and_coefficients(name: str, settings: list[tuple[str, float, float]]) -> None:
    assert [(route.name, route.weight, route.coefficient) for route in get(name).routes] == settings
    assert {route.labels for route in get(name).routes} <= {"averaged"}


@each_method
def test_the_name_of_a_method_names_its_objective(name: str) -> None:
    family = next((objective for objective in (ipo, slic) if objective.__name__ in name), dpo)
    assert get(name).objective is OF_ANOTHER_OBJECTIVE.get(name, family)


@each_method
def test_rounds_are_as_long_as_what_they_compare_with_stands_still(name: str) -> None:
    """Stale completions come with a reference that moves when they are drawn anew, or with an objective without one."""
    method = get(name)
    assert method.staleness in (0, 15)
    if method.staleness and method.objective is not likelihood:
        assert method.reference.steps == method.staleness + 1
    if method.opponent is not None and method.opponent.follows == "reference":
        assert method.opponent.steps == method.reference.steps


@pytest.mark.parametrize(
    ("name", "generations", "reference", "opponent"),
    [
        ("iterative-dpo", 2, "every 16 steps", "None"),
        ("rlhf-workflow", 8, "every 16 steps", "None"),
        ("self-rewarding", 4, "every 16 steps", "None"),
        ("dice", 16, "every 16 steps", "one move behind the reference, every 16 steps"),
        ("apo-accelerated", 2, "every 16 steps, momentum 0.3", "None"),
        ("rs-dpo", 16, "fixed", "None"),
        ("raft", 8, "fixed", "None"),
        ("superhf", 16, "fixed", "None"),
        ("sppo", 5, "every 16 steps", "None"),
        ("dno", 5, "every 16 steps", "None"),
        ("inpo", 8, "every 16 steps, anchor 0.333", "None"),
        ("nash-ema", 2, "fixed", "every step, mixup 0.001"),
        ("egpo", 2, "fixed", "None"),
    ],
)
def test_the_vetted_numbers_of_answers_and_rules(name: str, generations: int, reference: str, opponent: str) -> None:
    method = get(name)
    assert (method.generations, str(method.reference), str(method.opponent)) == (generations, reference, opponent)


def test_the_vetted_coefficients_of_addends() -> None:
    """The bonus of selm is alpha beta: alpha 1e-3, beta 0.01."""
    found = {name: {addend.name: addend.coefficient for addend in get(name).addends} for name in names()}
    assert {name: given for name, given in found.items() if given} == {
        "sail-revkl": {"forward_kl": 1e-3},
        "superhf": {"token_forward_kl": 0.35},
        "xpo": {"optimism": 1e-5},
        "selm": {"optimism": 1e-5},
        "rpo": {"likelihood": 5e-5},
        "rpo-per-token": {"likelihood": 0.2},
        "cpo": {"likelihood": 1.0},
        "orpo": {"likelihood": 1.0},
        "asft": {"likelihood": 1.0},
        "slic-hf": {"likelihood": 0.5},
        "pro": {"likelihood": 0.05},
        "rrhf": {"likelihood": 1.0},
    }
    summed = {
        name for name in found if any(each.name == "likelihood" and not each.per_token for each in get(name).addends)
    }
    assert summed == {"rpo", "slic-hf", "pro", "rrhf"}


def test_what_each_method_learns_from() -> None:
    forms = {form: {name for name in names() if get(name).form == form} for form in ("lists", "singles")}
    assert forms == {"lists": {*LISTS}, "singles": {*SINGLES}}
    facts = {name: dict(get(name).facts) for name in names() if get(name).facts}
    assert facts == {
        "a-lol": {"baseline": "group-mean"},
        "kto": {"reference_point": "mismatched"},
        "bco": {"shift": "midpoint"},
        "reinforce": {"baseline": "batch-mean"},
        "pf-reinforce": {"baseline": "batch-mean"},
        "grpo": {"old_policy": "sampling"},
        "p3o": {"old_policy": "sampling"},
        "f-dpg": {"old_policy": "sampling"},
    }


def test_the_vetted_numbers_of_answers_of_the_policy_gradients() -> None:
    found = {name: (get(name).generations, get(name).routes[0].pairing) for name in (*sorted(GRADIENTS), "best-of-n")}
    assert found == {
        "copg": (2, "all"),
        "f-dpg": (4, "all"),
        "grpo": (8, "all"),
        "p3o": (2, "all"),
        "pf-reinforce": (5, "rank-filter:best-random"),
        "reinforce": (1, "each"),
        "rloo": (4, "all"),
        "best-of-n": (16, "best"),
    }


def test_the_warm_pair_of_egpo_is_as_released() -> None:
    pair, third = get("egpo").routes[0].candidates
    assert (pair.count, dict(pair.sampling)) == (2, {"temperature": 2.0, "top_k": 10})
    assert (third.count, third.sampling) == (1, ())


def test_what_only_one_method_has() -> None:
    assert {name for name, method in CATALOGUE.items() if method.soup_share} == {"salsa"}
    assert {name for name, method in CATALOGUE.items() if method.judge} == {"self-rewarding"}
    assert {name for name, method in CATALOGUE.items() if method.update != "plain"} == {"egpo"}
    assert {name for name, method in CATALOGUE.items() if any(route.acquire < 1 for route in method.routes)} == {"apl"}


@each_method
def test_the_correction_is_off_by_default(name: str) -> None:
    assert all(route.correction == 0 for route in get(name).routes)


@each_method
def test_what_a_method_needs_follows_from_its_parts(name: str) -> None:
    method = get(name)
    assert method.draws == any(route.draws for route in method.routes) == (name not in OFFLINE)
    assert method.needs_labeler == any(route.preference == "labeler" for route in method.routes)
    assert method.needs_labeler == (name not in NO_LABELER)
    assert method.needs_dataset_pairs == (name not in PROMPTS_ALONE)
    by_value = {"raft", "superhf", "best-of-n", "sppo", "egpo", "dpo-margin", *LISTS, *SINGLES, *GRADIENTS}
    assert method.reads_values == (name in by_value)
    assert method.beta == (method.parameters.get("beta") or 1.0)


@each_method
def test_configured_changes_a_copy_and_remembers(name: str) -> None:
    method = get(name)
    given = {"beta": 0.7} if "beta" in method.parameters else {"length_normalize": False}
    changed = method.configured(parameters=given)
    assert changed.parameters == {**method.parameters, **given} != method.parameters
    assert changed.modified == ("parameters",)
    assert changed.routes == method.routes
    again = changed.configured(generations=7)
    assert again.modified == ("parameters", "generations")
    assert again.configured(generations=6).modified == ("parameters", "generations")


@each_method
def test_configured_without_changes_changes_nothing(name: str) -> None:
    assert get(name).configured() == get(name)
    assert get(name).configured(parameters=get(name).parameters).modified == ()


@each_method
def test_what_was_configured_can_be_configured_back(name: str) -> None:
    """Every setting there and back; a method that refuses one refuses it for all its routes."""
    method = get(name)
    away = method.configured(
        generations=method.generations + 1,
        coefficients={route.name: 0.5 for route in method.routes},
        addends={addend.name: 0.25 for addend in method.addends},
        reference=every(32),
    )
    assert all(route.coefficient == 0.5 for route in away.routes)
    assert all(addend.coefficient == 0.25 for addend in away.addends)
    back = away.configured(
        generations=method.generations,
        coefficients={route.name: route.coefficient for route in method.routes},
        addends={addend.name: addend.coefficient for addend in method.addends},
        reference=method.reference,
    )
    assert replace(back, modified=()) == method
    assert {"generations", "reference"} <= set(back.modified)


def test_every_kind_of_setting_can_be_configured() -> None:
    method = get("sail-mix").configured(
        weights={"ddp": 0.1, "dpr": 0.2},
        coefficients={"ddp": 0.5},
        corrections={"dpp": 0.05},
        labels="sampled",
        pairing="all-pairs",
    )
    ddp, dpp, dpr = method.routes
    assert [route.weight for route in method.routes] == [0.1, 0.15, 0.2]
    assert (ddp.coefficient, dpp.coefficient) == (0.5, 0.2)
    assert (ddp.correction, dpp.correction, dpr.correction) == (0.0, 0.05, 0.0)
    assert {route.labels for route in method.routes} == {"sampled"}
    assert (ddp.pairing, dpp.pairing, dpr.pairing) == ("first-two", "all-pairs", "all-pairs")
    assert method.modified == ("routes",)
    assert method.offline_weight == pytest.approx(0.55)


def test_an_addend_takes_another_coefficient() -> None:
    method = get("sail-revkl").configured(addends={"forward_kl": 0.02})
    assert method.addends[0].coefficient == 0.02
    assert method.modified == ("addends",)


def test_a_preset_keeps_what_was_configured_before() -> None:
    method = get("sail-dpp").configured(parameters={"beta": 0.3}).preset("published")
    assert method.modified == ("parameters", "preset published")
    assert method.beta == 0.3


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'sail_ddp'; did you mean 'sail-ddp'\?"):
        get("sail_ddp")


@each_method
def test_what_a_method_holds_cannot_be_changed_by_accident(name: str) -> None:
    method = get(name)
    with pytest.raises(TypeError):
        method.parameters["beta"] = 1.0  # type: ignore[index]
    with pytest.raises(AttributeError):
        method.name = "other"  # type: ignore[misc]


def test_acceptance_9_weights_of_zero_train_bit_identically_to_dpo() -> None:
    """Coefficients and corrections of routes that no row takes change nothing over 50 steps."""
    mixed = get("sail-mix").configured(
        weights={"ddp": 0.0, "dpp": 0.0, "dpr": 0.0},
        coefficients={"ddp": 3.0, "dpp": 2.0},
        corrections={"dpp": 1.0, "dpr": 1.0},
    )
    assert not mixed.draws
    assert not mixed.needs_labeler
    (first, world), (second, _) = lab.token_world(), lab.token_world()
    for _ in range(50):
        slopes = [
            lab.mixture_gradient(method, policy, world) for method, policy in ((mixed, first), (get("dpo"), second))
        ]
        assert torch.equal(*slopes)
        for policy, slope in zip((first, second), slopes, strict=True):
            lab.train_exact(policy, lambda slope=slope: slope, rate=5.0, steps=1)
    assert torch.equal(first.logits, second.logits)


def test_acceptance_11_offline_rows_do_not_notice_the_routes_beside_them() -> None:
    policy, world = lab.token_world()
    logps = world.data.log_probs(policy, world.reference)
    mixed, plain = (route_loss(get(name), None, logps.group(), world.data.p) for name in ("sail-mix", "dpo"))
    assert torch.equal(mixed.surrogate, plain.surrogate)
    assert torch.equal(mixed.value, plain.value)


def test_a_method_can_be_derived_with_but() -> None:
    method = get("dpo").with_parts(name="mine", summary="mine alone")
    assert (method.name, method.summary, method.objective) == ("mine", "mine alone", get("dpo").objective)
    assert replace(method, name="dpo", summary=get("dpo").summary) == get("dpo")
