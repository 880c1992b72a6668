"""The world of the rare good response, and the search over a finite class, against the algorithm written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail.core import SpecError, stream
from setsail.lab.rare_arm import COMMON, GOOD, RESPONSES, raised_class, rare_arm, search
from setsail.methods import Addend, Method, get
from setsail.objectives import negative_log_likelihood, sample_likelihood


def _uniforms(seed: int, rounds: int = 40) -> Tensor:
    return torch.from_numpy(stream(seed, "test-rare-arm").random((rounds, 3)))


def _xpo(alpha: float, samples: str = "reference") -> Method:
    addend = Addend(name="optimism", samples=samples, function=sample_likelihood, coefficient=alpha)
    return get("xpo").with_parts(addends=(addend,))


def test_the_reference_gives_the_best_response_once_in_ten_thousand_draws() -> None:
    policy, world = rare_arm()
    share = world.reference.log_probs().exp()[0]
    assert share.sum().item() == pytest.approx(1)
    assert share[GOOD].item() == pytest.approx(1e-4)
    assert share.argmax().item() == COMMON
    assert world.reward is not None
    assert world.reward[0].argmax().item() == GOOD
    assert world.preference[0, GOOD, COMMON].item() == pytest.approx(1 / (1 + math.exp(-4 * 0.5)))
    assert torch.equal(policy.log_probs(), world.reference.log_probs())


def test_the_data_set_never_shows_the_best_response() -> None:
    data = rare_arm()[1].data
    assert GOOD not in data.first.tolist() + data.second.tolist()
    assert data.p is not None
    assert data.p.tolist() == pytest.approx([1 / (1 + math.exp(-2))] * 8)


def test_each_policy_of_the_class_raises_one_response_by_fifteen_nats() -> None:
    policies = raised_class()
    assert policies.shape == (RESPONSES + 1, RESPONSES)
    torch.testing.assert_close(policies.exp().sum(-1), torch.ones(RESPONSES + 1, dtype=torch.float64))
    for response in range(RESPONSES):
        gain = policies[response + 1] - policies[0]
        others = [other for other in range(RESPONSES) if other != response]
        assert (gain[response] - gain[others]).tolist() == pytest.approx([15.0] * (RESPONSES - 1))


def _written_out(alpha: float, uniforms: Tensor, reads: tuple[int, ...]) -> list[int]:
    """The choices of algorithm 1 over the class, in plain numbers; ``reads``: which of the draws the bonus reads."""
    table, beta = raised_class().tolist(), 0.1
    preference = rare_arm()[1].preference[0].tolist()
    sums, current, choices = [0.0] * len(table), 0, []
    for first, second, label in uniforms.tolist():
        draws = []
        for policy, uniform in ((current, first), (0, second)):
            passed, drawn = 0.0, RESPONSES - 1
            for response, log_prob in enumerate(table[policy]):
                passed += math.exp(log_prob)
                if uniform < passed:
                    drawn = response
                    break
            draws.append(drawn)
        sign = 1 if label < preference[draws[0]][draws[1]] else -1
        for policy, row in enumerate(table):
            ratios = [row[drawn] - table[0][drawn] for drawn in draws]
            sums[policy] += math.log1p(math.exp(-sign * beta * (ratios[0] - ratios[1])))
            sums[policy] += alpha * sum(row[draws[side]] for side in reads)
        best = min(sums)
        current = next(policy for policy, value in enumerate(sums) if value <= best + 1e-9)
        choices.append(current)
    return choices


@pytest.mark.parametrize(("samples", "reads"), [("reference", (1,)), ("policy", (0,)), ("compared", (0, 1))])
@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_the_search_is_the_algorithm(alpha: float, samples: str, reads: tuple[int, ...]) -> None:
    for seed in range(3):
        found = search(_xpo(alpha, samples), _uniforms(seed))
        assert list(found.choices) == _written_out(alpha, _uniforms(seed), reads)


def test_what_is_found_is_the_first_draw_of_the_good_response() -> None:
    run = search(_xpo(0.02), _uniforms(0, 60))
    assert run.found is not None
    assert run.drawn[run.found - 1] == GOOD
    assert GOOD not in run.drawn[: run.found - 1]
    assert run.mass[-1] == pytest.approx(raised_class()[run.choices[-1], GOOD].exp().item())
    assert search(_xpo(0.0), _uniforms(0, 60)).found is None


def test_ties_go_to_the_reference() -> None:
    same = torch.full((5, 3), 0.5, dtype=torch.float64)
    assert search(_xpo(0.0), same).choices == (0,) * 5


def test_the_wrong_sign_sharpens_what_is_known() -> None:
    addend = Addend(name="optimism", samples="reference", function=negative_log_likelihood, coefficient=0.02)
    run = search(get("xpo").with_parts(addends=(addend,)), _uniforms(0))
    assert set(run.choices) == {COMMON + 1}


def test_the_search_refuses_other_routes() -> None:
    with pytest.raises(SpecError, match="compares a draw of the policy with one of the reference"):
        search(get("online-dpo"), _uniforms(0))
