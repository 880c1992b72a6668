"""Training on drawn pairs: one step is the gradient of the drawn loss, its mean the expected gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import SpecError, stream
from setsail.lab.sampled_runs import sampled_runs
from setsail.methods import Method, get
from setsail.objectives import LogProbs, dpo
from setsail.policies.tabular import TabularPolicy

REWARD = torch.tensor([[0.0, 1.0, -1.0, 0.5]], dtype=torch.float64)
BETA, ALPHA = 0.5, 0.3


def _world() -> lab.TabularWorld:
    reference = TabularPolicy(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()).frozen()
    return lab.TabularWorld(
        reference, lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.ones(1)), lab.bradley_terry(REWARD), REWARD
    )


def _method(alpha: float = ALPHA) -> Method:
    return get("xpo").configured(parameters={"beta": BETA}, addends={"optimism": alpha})


def _uniforms(rounds: int, runs: int) -> Tensor:
    return torch.from_numpy(stream(0, "test-sampled-runs").random((rounds, runs, 3)))


def _loss(logits: Tensor, drawn: Tensor, uniforms: Tensor) -> Tensor:
    """The loss of some drawn pairs of one run, written out."""
    world, table = _world(), logits.log_softmax(-1)
    reference = world.reference.log_probs()[0]
    first, second = drawn.unbind(-1)
    p = (uniforms[:, 2] < world.preference[0, first, second]).double()
    logps = LogProbs(table[first], table[second], reference[first], reference[second])
    return (dpo(logps, p, beta=BETA) + ALPHA * table[second]).sum()


@pytest.mark.parametrize("memory", [False, True])
def test_a_round_steps_along_the_loss_of_its_labels(memory: bool) -> None:
    uniforms, rate = _uniforms(4, 3), 0.7
    found = sampled_runs(_method(), _world(), uniforms, memory=memory, steps=2, rate=rate)
    for run in range(3):
        logits = _world().reference.log_probs()[0].clone()
        for number in range(4):
            learnt = slice(0, number + 1) if memory else slice(number, number + 1)
            for _ in range(2):
                wanted = logits.clone().requires_grad_()
                _loss(wanted, found.drawn[learnt, run], uniforms[learnt, run]).backward()
                assert wanted.grad is not None
                logits = logits - rate * wanted.grad
            torch.testing.assert_close(found.log_probs[number, run], logits.log_softmax(-1), atol=1e-12, rtol=0)


def test_the_mean_first_step_is_the_expected_gradient() -> None:
    runs, rate = 40_000, 1e-3
    found = sampled_runs(_method(), _world(), _uniforms(1, runs), rate=rate).log_probs[0]
    start = TabularPolicy(_world().reference.log_probs())
    wanted = -lab.mixture_gradient(_method(), start, _world())
    # A step in the logits shows in the log-probs up to a constant; the gradient sums to 0 over the responses.
    moved = (found - _world().reference.log_probs()) / rate
    moved = moved - moved.mean(-1, keepdim=True)
    error = moved.std(0) / runs**0.5
    assert ((moved.mean(0) - wanted).abs() / error).max().item() < 5
    assert wanted.abs().max().item() > 20 * error.max().item()


def test_the_first_draw_is_the_policys_and_the_second_the_references() -> None:
    uniforms = _uniforms(3, 50)
    found = sampled_runs(_method(0.0), _world(), uniforms, rate=5.0)
    reference = TabularPolicy(_world().reference.log_probs().expand(50, -1))
    prompt = torch.arange(50)
    for number in range(3):
        policy = reference if number == 0 else TabularPolicy(found.log_probs[number - 1])
        assert torch.equal(found.drawn[number, :, 0], policy.sample(prompt, uniforms[number, :, :1])[:, 0])
        assert torch.equal(found.drawn[number, :, 1], reference.sample(prompt, uniforms[number, :, 1:2])[:, 0])


def test_found_is_the_first_round_of_a_response() -> None:
    found = sampled_runs(_method(0.0), _world(), _uniforms(6, 20), rate=0.1)
    rounds = found.found(3)
    assert None in rounds
    for run, label in enumerate(rounds):
        draws = found.drawn[:, run, 0].tolist()
        assert label == (draws.index(3) + 1 if 3 in draws else None)


@pytest.mark.parametrize("name", ["dpo", "spin", "samplers-mix-r", "raft"])
def test_methods_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="sampled runs compare two draws"):
        sampled_runs(get(name), _world(), _uniforms(1, 2))


def test_addends_on_other_completions_are_refused() -> None:
    method = _method().with_parts(addends=get("sail-revkl").addends)
    with pytest.raises(SpecError, match="reads completions other than the two that are drawn"):
        sampled_runs(method, _world(), _uniforms(1, 2))
