"""Averages of models: exact at the ends, shared with nobody, and refused where an average means nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from frozen_policies import PROMPTS, VOCABULARY, small, start, train
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM

from setsail.core import ConfigError
from setsail.policies import collate, hold_reference, soup, token_logps
from setsail.policies.tabular import TabularPolicy

BATCH = collate(PROMPTS, [(3, 4, 1)] * len(PROMPTS), pad_id=0)


def _cousins() -> tuple[Any, Any]:
    """Two models fine-tuned from one base."""
    return tiny.perturbed(small(), 0.05, seed=1), tiny.perturbed(small(), 0.05, seed=2)


def _policy(probabilities: tuple[float, ...]) -> TabularPolicy:
    return TabularPolicy(torch.tensor([probabilities], dtype=torch.float64).log())


def test_in_log_space_it_is_the_geometric_mean() -> None:
    """Logits as weights: the soup of (.7, .2, .1) and (.1, .3, .6) is (.350675, .324662, .324662), normalized.

    With R = (1, .5, 0) and beta .5 its optimum is (.682181, .232344, .085475) with value .667283; a policy that starts
    from the first model begins at a KL of .269198.
    """
    first, second = _policy((0.7, 0.2, 0.1)), _policy((0.1, 0.3, 0.6))
    mixed = TabularPolicy.uniform(prompts=1, responses=3)
    mixed.load_state_dict(soup([first, second], [0.5, 0.5]))
    reference = mixed.log_probs()[0].detach()
    assert reference.exp().tolist() == pytest.approx([0.350675, 0.324662, 0.324662], abs=1e-6)
    reward, beta = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64), 0.5
    tilted = reference + reward / beta
    assert tilted.softmax(-1).tolist() == pytest.approx([0.682181, 0.232344, 0.085475], abs=1e-6)
    assert beta * float(tilted.logsumexp(-1)) == pytest.approx(0.667283, abs=1e-6)
    own = first.log_probs()[0].detach()
    assert float((own.exp() * (own - reference)).sum()) == pytest.approx(0.269198, abs=1e-6)


@pytest.mark.parametrize("as_state", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_ends_are_the_models_themselves(dtype: torch.dtype, as_state: bool) -> None:
    """Bit for bit, also beside a model that is broken."""
    first, second = (each.to(dtype) for each in _cousins())
    with torch.no_grad():
        first.lm_head.weight[0, :3] = -0.0
        second.lm_head.weight[5] = float("nan")
    models = [each.state_dict() if as_state else each for each in (first, second)]
    found = soup(models, [1, 0])
    assert found.keys() == first.state_dict().keys()
    for name, wanted in first.state_dict().items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], wanted)
        assert torch.equal(found[name].signbit(), wanted.signbit())
    assert torch.equal(soup(list(reversed(models)), [0.0, 1.0])["lm_head.weight"], first.lm_head.weight)


def test_it_is_the_average() -> None:
    models = [*_cousins(), small()]
    found = soup(models, [0.5, 0.2, 0.3])
    states = [model.state_dict() for model in models]
    for name, weight in found.items():
        wanted = sum(w * state[name].double() for w, state in zip((0.5, 0.2, 0.3), states, strict=True))
        assert torch.allclose(weight.double(), wanted, atol=1e-7)  # type: ignore[arg-type]
        assert not weight.requires_grad


def test_low_precision_is_summed_in_float32() -> None:
    """Two hundred bfloat16 copies of 1.01: a bfloat16 sum would drift by more than a percent."""
    states = [{"w": torch.full((3,), 1.01, dtype=torch.bfloat16)} for _ in range(200)]
    assert torch.equal(soup(states, [1 / 200] * 200)["w"], states[0]["w"])


def test_it_shares_no_storage() -> None:
    first, second = _cousins()
    found = soup([first, second], [1, 0])
    buffers = {"steps": torch.tensor(3), "w": torch.ones(2)}
    both = soup([buffers, buffers], [0.5, 0.5])
    taken = {id(t.untyped_storage()) for t in found.values()} | {t.data_ptr() for t in found.values()}
    owned = {t.data_ptr() for model in (first, second) for t in model.state_dict().values()}
    assert not taken & owned
    assert both["steps"].data_ptr() != buffers["steps"].data_ptr()
    before = found["lm_head.weight"].clone()
    with torch.no_grad():
        first.lm_head.weight.zero_()
    assert torch.equal(found["lm_head.weight"], before)


def test_as_a_reference_it_is_frozen() -> None:
    """A policy that starts at one of the two: another policy than its reference, which gets no gradient and stays."""
    first, second = _cousins()
    mixed = copy.deepcopy(first)
    mixed.load_state_dict(soup([first, second], [0.5, 0.5]))
    reference = hold_reference(first, fresh_adapter=False, moves=False, given=mixed)

    def says(module: nn.Module) -> Tensor:
        return token_logps(module, BATCH).detach()

    with reference.active() as module:
        before = says(module)
        assert float((before - says(first)).abs().max()) > 0.01
        (token_logps(first, BATCH) - token_logps(module, BATCH)).sum().backward()
        assert all(p.grad is None for p in module.parameters())
        first.zero_grad()
        train(first)
        assert torch.equal(says(module), before)


def test_tied_weights_stay_tied() -> None:
    models = [tiny.perturbed(tiny.llama(VOCABULARY, tie_word_embeddings=True), 0.05, seed=s) for s in (1, 2)]
    found = soup(models, [0.5, 0.5])
    models[0].load_state_dict(found)
    assert models[0].lm_head.weight is models[0].model.embed_tokens.weight
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


# What is refused.


def test_weights_sum_to_one_unless_said() -> None:
    state = {"w": torch.ones(2)}
    with pytest.raises(ConfigError, match=r"must sum to 1, got \[0.5, 0.6\] with sum 1.1; divide them by their sum"):
        soup([state, state], [0.5, 0.6])
    assert soup([state, state], [0.5, 0.6], sum_to_one=False)["w"].tolist() == pytest.approx([1.1, 1.1])
    assert soup([state, state, state], [1, 1, -1])["w"].tolist() == [1, 1]
    assert soup([state], [0.0], sum_to_one=False)["w"].tolist() == [0, 0]
    with pytest.raises(ConfigError, match="must be finite numbers"):
        soup([state, state], [float("nan"), 1])
    with pytest.raises(ConfigError, match="got 2 models and 1 weights"):
        soup([state, state], [1])
    with pytest.raises(ConfigError, match="got 0 models"):
        soup([], [])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": torch.ones(3), "n": torch.tensor(1)}, r"'w' has shape \(2,\) in the first model and \(3,\) in model 3"),
        ({"n": torch.tensor(1)}, "1 weights are in one of models 1 and 3 alone: 'w' is only in the first model"),
        ({"w": torch.ones(2), "n": torch.tensor(1), "x": torch.ones(1)}, "'x' is only in model 3"),
        ({"w": torch.ones(2), "n": torch.tensor(2)}, "'n' is not a floating tensor, .* differs between the first"),
    ],
)
def test_weights_must_correspond(other: dict[str, Tensor], message: str) -> None:
    first = {"w": torch.ones(2), "n": torch.tensor(1)}
    with pytest.raises(ConfigError, match=message):
        soup([first, first, other], [0.5, 0.25, 0.25])


def test_architectures_must_agree() -> None:
    """Also where every name and shape does."""
    llama = small()
    settings = {key: value for key, value in llama.config.to_dict().items() if key in MistralConfig().to_dict()}
    mistral = MistralForCausalLM(MistralConfig(**{**settings, "model_type": "mistral"}))
    assert mistral.state_dict().keys() == llama.state_dict().keys()
    with pytest.raises(ConfigError, match="got LlamaForCausalLM and, as model 2, MistralForCausalLM"):
        soup([llama, mistral], [0.5, 0.5])
    other = tiny.llama(VOCABULARY, rms_norm_eps=1e-3)
    with pytest.raises(ConfigError, match=r"but model 2 has rms_norm_eps=0.001 where the first has 1e-06"):
        soup([llama, other], [0.5, 0.5])
    soup([llama.state_dict(), other.state_dict()], [0.5, 0.5])
    same = tiny.llama(VOCABULARY, attention_dropout=0.5, use_cache=False)
    soup([llama, same], [0.5, 0.5])


def test_adapters_are_refused() -> None:
    """The average of factors is not the average of their products."""
    policy, _ = start("existing adapter")
    for models in ([policy, policy], [policy.state_dict(), policy.state_dict()]):
        with pytest.raises(ConfigError, match="merge the adapters first"):
            soup(models, [0.5, 0.5])
