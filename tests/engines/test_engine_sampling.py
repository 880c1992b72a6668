"""The in-process engine draws from the policy, and from nothing else."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from scipy.stats import chi2
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM

from setsail import SailConfig
from setsail.core import Candidates, ConfigError, EngineError, Prompt, Sampling
from setsail.engines import TransformersEngine
from setsail.engines.sampling import inverse_cdf, warp
from setsail.policies import score

PROMPT = (5, 9, 3, 7)
VOCABULARY = 12
DRAWS = 6000


def _decoder(pad: int = 0) -> Any:
    return SimpleNamespace(pad_token_id=pad, batch_decode=lambda rows, **_: [str(row) for row in rows])


def _small(seed: int = 1) -> Any:
    return tiny.favor_eos(tiny.perturbed(tiny.llama(VOCABULARY, seed=seed), scale=0.1, seed=seed), 0.5).eval()


def _draw(
    model: Any, prompts: list[tuple[int, ...]], *, n: int = 1, eos: tuple[int, ...] = (1,), batch: int = 256,
    names: list[int] | None = None, seed: int = 0, **sampling: Any,
) -> list[Candidates]:  # fmt: skip
    engine = TransformersEngine(model, _decoder(), eos, batch_size=batch)
    numbers = list(range(len(prompts))) if names is None else names
    return engine.generate(
        [Prompt(row_id=i, text="", token_ids=ids) for i, ids in zip(numbers, prompts, strict=True)],
        n=n,
        sampling=Sampling(**sampling),
        streams=[("sample", i, 0) for i in numbers],
        seed=seed,
        policy_version=0,
    )


def _next(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
    return logits


def _chi_square(counts: Counter[int], probabilities: torch.Tensor) -> float:
    """p-value of the counts under the probabilities, rare tokens taken together."""
    total = sum(counts.values())
    expected = [(float(p) * total, counts[token]) for token, p in enumerate(probabilities)]
    common = [each for each in expected if each[0] >= 5]
    rest = (sum(e for e, _ in expected if e < 5), sum(o for e, o in expected if e < 5))
    cells = [*common, rest] if rest[0] > 0 else common
    statistic = sum((observed - e) ** 2 / e for e, observed in cells)
    return float(chi2.sf(statistic, len(cells) - 1))


@pytest.fixture(scope="module")
def drawn() -> tuple[Any, list[Candidates]]:
    model = _small()
    return model, _draw(model, [PROMPT] * DRAWS, max_completion_length=2)


def test_first_tokens_have_the_policys_frequencies(drawn: tuple[Any, list[Candidates]]) -> None:
    """Acceptance test 23: temperature 1, nothing truncated, chi-square p > 1e-4."""
    model, groups = drawn
    counts = Counter(group.completions[0].token_ids[0] for group in groups)
    probabilities = _next(model, PROMPT).softmax(-1)
    assert _chi_square(counts, probabilities) > 1e-4
    # The test can tell 0.9 from 1.
    assert _chi_square(counts, (_next(model, PROMPT) / 0.8).softmax(-1)) < 1e-4


def test_second_tokens_follow_the_first(drawn: tuple[Any, list[Candidates]]) -> None:
    """Acceptance test 23, through the cache: frequencies after each first token that is common enough."""
    model, groups = drawn
    after: dict[int, Counter[int]] = {}
    for group in groups:
        first, *second = group.completions[0].token_ids
        if second:
            after.setdefault(first, Counter())[second[0]] += 1
    common = {first: counts for first, counts in after.items() if sum(counts.values()) > 300}
    assert len(common) >= 3
    for first, counts in common.items():
        assert _chi_square(counts, _next(model, (*PROMPT, first)).softmax(-1)) > 1e-4


@pytest.mark.parametrize(
    ("sampling", "reshape"),
    [
        ({"temperature": 0.7}, lambda logits: logits / 0.7),
        ({"top_k": 4}, lambda logits: logits.masked_fill(logits < logits.topk(4).values[-1], -torch.inf)),
        (
            {"min_p": 0.3},
            lambda logits: logits.masked_fill(logits.softmax(-1) < 0.3 * logits.softmax(-1).max(), -torch.inf),
        ),
    ],
)
def test_reshaped_frequencies(sampling: dict[str, Any], reshape: Any) -> None:
    model = _small()
    groups = _draw(model, [PROMPT] * DRAWS, max_completion_length=1, **sampling)
    counts = Counter(group.completions[0].token_ids[0] for group in groups)
    wanted = reshape(_next(model, PROMPT)).softmax(-1)
    assert _chi_square(counts, wanted) > 1e-4
    assert all(wanted[token] > 0 for token in counts)
    # The log-prob is the policy's own all the same.
    policy = _next(model, PROMPT).log_softmax(-1)
    for group in groups[:50]:
        [answer] = group.completions
        assert answer.logp == pytest.approx(float(policy[answer.token_ids[0]]), abs=1e-5)


@pytest.mark.parametrize("reshaped", [{"temperature": 0.9}, {"top_p": 0.9}, {"top_k": 50}, {"repetition_penalty": 1.1}])
def test_a_correction_on_reshaped_draws_is_refused(tmp_path: Any, reshaped: dict[str, float]) -> None:
    """Acceptance test 23: temperature 0.9 with a correction is refused, with the setting's name in the message."""
    [(name, value)] = reshaped.items()
    with pytest.raises(ConfigError, match=f"needs answers drawn from the policy itself, .*{name}={value:g}"):
        SailConfig(output_dir=str(tmp_path), method="sail-dpr", preset="published", use_cpu=True, **reshaped)
    SailConfig(output_dir=str(tmp_path), method="sail-dpr", use_cpu=True, **reshaped)


# What a draw depends on.


def _tokens(groups: list[Candidates]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group.completions] for group in groups]


PROMPTS = [tuple(5 + (i * k) % 300 for k in range(1, 3 + i % 7)) for i in range(1, 13)]


def test_draws_depend_on_stream_and_weights_alone(model: LlamaForCausalLM) -> None:
    """Batch size, order and neighbors change nothing; seed and stream change everything."""
    options = {"n": 2, "max_completion_length": 12}
    whole = _tokens(_draw(model, PROMPTS, **options))
    assert _tokens(_draw(model, PROMPTS, batch=1, **options)) == whole
    assert _tokens(_draw(model, PROMPTS, batch=5, **options)) == whole
    order = [7, 2, 11, 0, 5]
    some = _draw(model, [PROMPTS[i] for i in order], names=order, **options)
    assert _tokens(some) == [whole[i] for i in order]
    assert _tokens(_draw(model, PROMPTS, seed=1, **options)) != whole
    assert _tokens(_draw(model, PROMPTS, names=list(range(20, 32)), **options)) != whole


def test_more_answers_keep_the_first(model: LlamaForCausalLM) -> None:
    two, four = (_tokens(_draw(model, PROMPTS, n=n, max_completion_length=8)) for n in (2, 4))
    assert [group[:2] for group in four] == two
    assert len({ids for group in four for ids in group}) > 30


def test_a_longer_limit_only_prolongs(model: LlamaForCausalLM) -> None:
    short, long = (_draw(model, PROMPTS, n=2, max_completion_length=limit) for limit in (4, 16))
    for one, two in zip(short, long, strict=True):
        for cut, whole in zip(one.completions, two.completions, strict=True):
            assert whole.token_ids[: cut.length] == cut.token_ids
            assert cut.finished is (whole.finished and whole.length <= 4)


def _architectures(vocabulary: int) -> dict[str, Any]:
    torch.manual_seed(3)
    window = MistralConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=5, initializer_range=0.1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return {"full attention": tiny.llama(vocabulary), "sliding window": tiny.favor_eos(MistralForCausalLM(window))}


@pytest.mark.parametrize("name", ["full attention", "sliding window"])
def test_log_probs_are_those_of_the_scorer(tokenizer: Any, name: str) -> None:
    """Acceptance test 17: sampler and scorer agree to 1e-4, also where rows left the batch early."""
    model = _architectures(len(tokenizer))[name].eval()
    groups = _draw(model, PROMPTS, n=6, max_completion_length=24)
    answers = [(group.prompt.token_ids, answer) for group in groups for answer in group.completions]
    lengths = [answer.length for _, answer in answers]
    assert min(lengths) <= 2
    assert max(lengths) > 12
    scored = score(model, [p for p, _ in answers], [a.token_ids for _, a in answers], pad_id=0, device="cpu")
    for (_, answer), logps in zip(answers, scored, strict=True):
        assert answer.logp == pytest.approx(float(logps.sum()), abs=1e-4)


def test_answers_end_with_any_of_the_eos_ids(model: LlamaForCausalLM) -> None:
    ends = (1, *range(17, 60))
    groups = _draw(model, PROMPTS * 4, n=4, eos=ends, max_completion_length=8)
    answers = [answer for group in groups for answer in group.completions]
    for answer in answers:
        assert answer.finished is (answer.token_ids[-1] in ends)
        assert not set(answer.token_ids[:-1]) & set(ends)
        assert answer.finished or answer.length == 8
    assert len({answer.token_ids[-1] for answer in answers if answer.finished}) >= 2
    assert any(not answer.finished for answer in answers)


# What it leaves behind.


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(tokenizer: Any, training: bool) -> None:
    """Mode, gradients and graph: drawing is not training, and it is without dropout."""
    model = tiny.llama(len(tokenizer), attention_dropout=0.5)
    expected = _tokens(_draw(model.eval(), PROMPTS, max_completion_length=6))
    model.train(training)
    assert _tokens(_draw(model, PROMPTS, max_completion_length=6)) == expected
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_survives_an_error(tokenizer: Any) -> None:
    model = tiny.llama(len(tokenizer)).train()
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(EngineError, match="not finite at completion token 1"):
        _draw(model, PROMPTS)
    assert model.training


def test_an_engine_needs_an_end(model: LlamaForCausalLM) -> None:
    with pytest.raises(EngineError, match="no EOS id is known"):
        TransformersEngine(model, _decoder(), ())


# One token from logits.


def test_uniforms_decide_the_token() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.0, 0.5, 0.3]] * 5))
    uniform = torch.tensor([0.0, 0.1999, 0.2001, 0.6999, 0.999999], dtype=torch.float64)
    assert inverse_cdf(logits, uniform).tolist() == [0, 0, 2, 2, 3]


def test_tails_of_a_large_vocabulary_are_reached() -> None:
    """The last of 150,000 tokens has probability 1e-6; float32 cumulative sums would lose it."""
    logits = torch.zeros(1, 150_000)
    last = inverse_cdf(logits, torch.tensor([1 - 1e-9], dtype=torch.float64))
    assert last.item() == 149_999
    middle = inverse_cdf(logits, torch.tensor([100_000.5 / 150_000], dtype=torch.float64))
    assert middle.item() == 100_000


def test_nothing_is_reshaped_by_default() -> None:
    logits = torch.randn(2, 7)
    assert warp(logits, Sampling(), torch.zeros(2, 1, dtype=torch.long)) is logits


def test_repetition_penalty_reads_prompt_and_answer() -> None:
    """A penalty large enough forbids every token that the prompt or the answer so far holds (logits above 0)."""
    model = _small()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.1)
    groups = _draw(model, [PROMPT] * 40, eos=(1,), max_completion_length=6, repetition_penalty=1.0)
    repeats = [len(ids) - len(set(ids)) for [ids] in _tokens(groups)]
    assert sum(repeats) > 5
    history = torch.tensor([[3, 5]])
    logits = torch.tensor([[1.0, 1.0, 2.0, 2.0, -1.0, -1.0]])
    assert warp(logits, Sampling(repetition_penalty=2.0), history).tolist() == [[1.0, 1.0, 2.0, 1.0, -1.0, -2.0]]


@pytest.mark.parametrize("size", [2, 255, 256, 257, 1000])
def test_inverse_cdf_is_that_of_the_plain_cumulative_sum(size: int) -> None:
    """Blocks change nothing: the same token as one long cumulative sum gives, and never one of probability 0."""
    generator = torch.Generator().manual_seed(size)
    logits = 3 * torch.randn(400, size, generator=generator)
    logits[torch.rand(400, size, generator=generator) < 0.3] = -torch.inf
    logits[:, size // 2] = 0.0
    uniform = torch.rand(400, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    cumulative = torch.softmax(logits.double(), -1).cumsum(-1)
    wanted = torch.searchsorted(cumulative, (uniform * cumulative[:, -1]).unsqueeze(-1), right=True).squeeze(-1)
    found = inverse_cdf(logits, uniform)
    # Float32 weights may move a border by 1e-6 of the mass, which only a draw that falls there can notice.
    assert int((found != wanted).sum()) <= 1
    assert bool(torch.isfinite(logits.gather(-1, found.unsqueeze(-1))).all())
