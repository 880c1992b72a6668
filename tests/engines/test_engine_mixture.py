"""The token-wise mixture of two models, against its definition computed step by step and without a cache."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from frozen_policies import KINDS, PROMPTS, VOCABULARY, decoder, draw, moved, said, small, state, tokens, train
from scipy.stats import chi2
from torch import Tensor

from setsail.core import ConfigError, EngineError, stream
from setsail.engines import FrozenEngine, MixtureEngine, TransformersEngine
from setsail.engines.mixture import MixedModels
from setsail.policies import FrozenCopy

EOS = 1
ENDS = (1, 5, 8)


@torch.no_grad()
def _log_probs(model: Any, ids: tuple[int, ...]) -> Tensor:
    table: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().log_softmax(-1)
    return table


def _mixed(policy: Any, reference: Any, ids: tuple[int, ...], weight: float) -> Tensor:
    """``(1 - weight) log pi + weight log pi_ref``, renormalized: from two passes over the whole prefix."""
    own = _log_probs(policy, ids)
    with reference.active() as module:
        other = _log_probs(module, ids)
    return ((1 - weight) * own + weight * other).log_softmax(-1)


def _brute_force(
    policy: Any, reference: Any, weight: float, n: int, limit: int, reshape: Any
) -> list[list[tuple[tuple[int, ...], float]]]:
    """The completions that the same uniforms give, one token after the other."""
    groups = []
    for number, prompt in enumerate(PROMPTS):
        group = []
        for k in range(n):
            uniforms, answer, logp = stream(3, "sample", number, 0, k).random(limit), [], 0.0
            for uniform in uniforms:
                law = _mixed(policy, reference, (*prompt, *answer), weight)
                token = int((reshape(law).softmax(-1).cumsum(-1) <= uniform).sum())
                answer.append(token)
                logp += float(law[token])
                if token in ENDS:
                    break
            group.append((tuple(answer), logp))
        groups.append(group)
    return groups


@pytest.mark.parametrize(
    ("weight", "sampling", "reshape"),
    [
        (0.25, {}, lambda law: law),
        (-0.5, {}, lambda law: law),
        (1.4, {}, lambda law: law),
        (0.5, {"temperature": 0.7}, lambda law: law / 0.7),
        (-0.5, {"top_k": 6}, lambda law: law.masked_fill(law < law.topk(6).values[-1], -torch.inf)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_log_probs_are_those_of_the_definition(
    kind: str, weight: float, sampling: dict[str, Any], reshape: Any
) -> None:
    """Prompts of several lengths in one batch, rows that finish early: still token by token, under every sampling."""
    policy, reference = moved(kind)
    engine = MixtureEngine(policy, reference, decoder(), ENDS, weight=weight)
    found = said(draw(engine, n=2, max_completion_length=7, **sampling))
    wanted = _brute_force(policy, reference, weight, n=2, limit=7, reshape=reshape)
    lengths = set()
    for group, expected in zip(found, wanted, strict=True):
        for (ids, logp), (wanted_ids, wanted_logp) in zip(group, expected, strict=True):
            assert ids == wanted_ids
            assert logp == pytest.approx(wanted_logp, abs=1e-4)
            lengths.add(len(ids))
    assert len(lengths) >= 2


def test_completions_have_the_mixtures_law() -> None:
    """All 133 completions of up to two tokens, chi-square against their enumerated probabilities."""
    policy, reference = moved("full weights")
    prompt, weight, draws = PROMPTS[3], 0.4, 4000
    probabilities: dict[tuple[int, ...], float] = {}
    first = _mixed(policy, reference, prompt, weight).exp().tolist()
    for token in range(VOCABULARY):
        if token == EOS:
            probabilities[(token,)] = first[token]
            continue
        second = _mixed(policy, reference, (*prompt, token), weight).exp().tolist()
        probabilities |= {(token, other): first[token] * second[other] for other in range(VOCABULARY)}
    assert sum(probabilities.values()) == pytest.approx(1)

    def p_value(used: float) -> float:
        engine = MixtureEngine(policy, reference, decoder(), [EOS], weight=used, batch_size=1)
        [group] = draw(engine, [prompt], n=draws, max_completion_length=2)
        counts = Counter(answer.token_ids for answer in group.completions)
        cells = [(p * draws, counts[ids]) for ids, p in probabilities.items() if p * draws >= 5]
        cells.append((draws - sum(e for e, _ in cells), draws - sum(o for _, o in cells)))
        return float(chi2.sf(sum((o - e) ** 2 / e for e, o in cells), len(cells) - 1))

    assert p_value(weight) > 1e-3
    # The test can tell the weights apart.
    assert p_value(1 - weight) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.7, "top_p": 0.9}, {"repetition_penalty": 1.3}, {"min_p": 0.2}]
)
def test_the_ends_are_the_two_models_themselves(kind: str, sampling: dict[str, Any]) -> None:
    """Weight 0 gives the policy's very tokens and log-probs for the same streams, weight 1 the reference's."""
    policy, reference = moved(kind)
    at = {w: said(draw(MixtureEngine(policy, reference, decoder(), [EOS], weight=w), **sampling)) for w in (0, 0.5, 1)}
    assert at[0] == said(draw(TransformersEngine(policy, decoder(), [EOS]), **sampling))
    assert at[1] == said(draw(FrozenEngine(reference, decoder(), [EOS]), **sampling))
    assert at[0.5] not in (at[0], at[1])


def test_at_the_ends_the_other_model_is_not_run() -> None:
    policy, reference = moved("full weights")
    assert isinstance(reference, FrozenCopy)
    for weight, idle in ((0, reference.module), (1, policy)):
        handle = idle.register_forward_pre_hook(lambda *_: pytest.fail("a model without a share was run"))
        draw(MixtureEngine(policy, reference, decoder(), [EOS], weight=weight))
        handle.remove()


def test_both_caches_advance_in_lockstep() -> None:
    """Each prompt is read once by each model, whatever n, and rows that have finished leave both."""
    policy, reference = moved("full weights")
    assert isinstance(reference, FrozenCopy)
    read: dict[str, list[tuple[int, ...]]] = {"policy": [], "reference": []}
    for name, model in (("policy", policy), ("reference", reference.module)):
        model.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: read[name].append(tuple(kwargs["input_ids"].shape)),
            with_kwargs=True,
        )
    groups = draw(MixtureEngine(policy, reference, decoder(), [EOS], weight=0.3), n=5, max_completion_length=20)
    assert read["policy"] == read["reference"]
    prefill, *steps = read["policy"]
    assert prefill == (len(PROMPTS), max(map(len, PROMPTS)))
    rows = [rows for rows, _ in steps]
    assert rows == sorted(rows, reverse=True)
    assert 1 <= rows[-1] <= 5 < 20 <= rows[0] <= 5 * len(PROMPTS)
    assert len(rows) == max(answer.length for group in groups for answer in group.completions) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_changes_nothing(kind: str) -> None:
    """With rows that leave the caches at different moments."""
    policy, reference = moved(kind)
    whole, single, pairs = (
        draw(MixtureEngine(policy, reference, decoder(), [EOS], weight=-0.5, batch_size=size)) for size in (16, 1, 2)
    )
    for other in (single, pairs):
        assert tokens(said(other)) == tokens(said(whole))
        for one, two in zip(said(whole), said(other), strict=True):
            assert [logp for _, logp in one] == pytest.approx([logp for _, logp in two], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_are_left_as_they_were(kind: str) -> None:
    policy, reference = moved(kind)
    policy.train()
    engine = MixtureEngine(policy, reference, decoder(), [EOS], weight=0.5)
    before = state(policy)
    drawn = said(draw(engine))
    assert state(policy) == before
    assert said(draw(engine)) == drawn
    with torch.no_grad():
        policy.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(EngineError, match="not finite at completion token 1"):
        draw(engine)
    assert {**state(policy), "weights": None} == {**before, "weights": None}
    assert not any(p.grad is not None for p in policy.parameters())


def test_both_models_draw_without_dropout() -> None:
    import tiny

    models = [tiny.llama(VOCABULARY, seed=seed, attention_dropout=0.5) for seed in (1, 2)]
    reference = FrozenCopy(*models)
    engine = MixtureEngine(models[0], reference, decoder(), [EOS], weight=0.5)
    found = []
    for training in (False, True):
        for model in models:
            model.train(training)
        found.append(said(draw(engine)))
        assert [model.training for model in models] == [training, training]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mixture_moves_with_the_policy(kind: str) -> None:
    """The policy's part is that of today, the reference's that of the start."""
    policy, reference = moved(kind)
    engine = MixtureEngine(policy, reference, decoder(), ENDS, weight=0.5)
    before = said(draw(engine))
    train(policy)
    policy.eval()
    after = said(draw(engine, n=1, max_completion_length=5))
    assert after != [[group[0]] for group in before]
    wanted = _brute_force(policy, reference, 0.5, n=1, limit=5, reshape=lambda law: law)
    assert tokens(after) == tokens(wanted)


def test_completions_come_from_the_mixture() -> None:
    policy, reference = moved("full weights")
    for origin, options in (("mixture", {}), ("opponent", {"origin": "opponent"})):
        engine = MixtureEngine(policy, reference, decoder(), [EOS], weight=0.5, **options)
        for group in draw(engine):
            assert {answer.origin for answer in group.completions} == {origin}


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_must_be_finite(weight: float) -> None:
    policy, reference = moved("full weights")
    with pytest.raises(ConfigError, match="weight of the reference in the mixture must be a finite number, got"):
        MixtureEngine(policy, reference, decoder(), [EOS], weight=weight)


def test_an_end_is_needed() -> None:
    policy, reference = moved("full weights")
    with pytest.raises(EngineError, match="no EOS id is known"):
        MixtureEngine(policy, reference, decoder(), [], weight=0.5)


def test_models_over_different_vocabularies_are_refused() -> None:
    import tiny

    policy = small()
    engine = MixtureEngine(policy, FrozenCopy(policy, tiny.llama(15)), decoder(), [EOS], weight=0.5)
    with pytest.raises(EngineError, match="vocabularies of 12 and 15 tokens"):
        draw(engine)


# Tokens that a model cannot draw.


class _Fixed:
    """A model that gives one row of logits, whatever it reads."""

    def __init__(self, *logits: float) -> None:
        self.logits = torch.tensor([logits])

    def prefill(self, input_ids: Tensor, mask: Tensor, copies: int) -> Tensor:
        return self.logits

    def forward(self, token: Tensor) -> Tensor:
        return self.logits

    def compact(self, keep: Tensor) -> None:
        return None


@pytest.mark.parametrize("weight", [0.5, -0.5, 1.5])
def test_a_token_that_neither_model_draws_stays_impossible(weight: float) -> None:
    """Minus infinity times a negative share would be plus infinity."""
    mixed = MixedModels([(1 - weight, _Fixed(1.0, -math.inf, 2.0)), (weight, _Fixed(0.5, -math.inf, 1.0))])
    for logits in (mixed.prefill(torch.zeros(1, 1), torch.ones(1, 1), 1), mixed.forward(torch.zeros(1))):
        assert logits.tolist() == [[1 - weight / 2, -math.inf, 2 - weight]]


def test_a_token_that_one_model_never_draws() -> None:
    """Interpolating, it is impossible; extrapolating away from that model, the mixture is not defined."""
    policy, reference = _Fixed(1.0, 0.0), _Fixed(0.5, -math.inf)
    inside = MixedModels([(0.5, policy), (0.5, reference)]).forward(torch.zeros(1))
    assert inside.tolist() == [[0.75, -math.inf]]
    outside = MixedModels([(1.5, policy), (-0.5, reference)]).forward(torch.zeros(1))
    assert outside[0, 1] == math.inf
