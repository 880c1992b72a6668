"""The reference is frozen, and looking at it leaves the policy as it was."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import AutoModelForCausalLM, TrainerCallback

from setsail import SailTrainer
from setsail.core import ConfigError


def _lora(**changes: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **changes)


def _existing(path: str) -> Any:
    from peft import get_peft_model

    torch.manual_seed(2)
    base = AutoModelForCausalLM.from_pretrained(path)
    return get_peft_model(base, _lora(init_lora_weights=False))


def _trainer(build: Build, kind: str, path: str, tokenizer: Any, **options: Any) -> SailTrainer:
    if kind == "existing adapter":
        return build(model=_existing(path), processing_class=tokenizer, **options)
    return build(peft_config=_lora() if kind == "fresh adapter" else None, **options)


def _scores(trainer: SailTrainer) -> list[torch.Tensor]:
    rows = list(trainer.train_dataset)[:8]
    sides = [row.chosen for row in rows] + [row.rejected for row in rows]
    return trainer.scorer.under_reference([row.prompt for row in rows] * 2, [side for side in sides if side])


@pytest.mark.parametrize(
    ("kind", "description"),
    [
        ("full weights", "frozen copy of the starting policy"),
        ("fresh adapter", "the base model, adapter disabled"),
        ("existing adapter", "frozen copy of the starting adapter"),
    ],
)
def test_the_reference_is_frozen(build: Build, model_path: str, tokenizer: Any, kind: str, description: str) -> None:
    """Acceptance test 28: its log-probs are bit-identical after 100 steps, while the policy's are not."""
    trainer = _trainer(build, kind, model_path, tokenizer, method="sail-dpp", max_steps=100, logging_steps=50)
    assert trainer.reference.description == description
    rows = list(trainer.train_dataset)[:4]
    prompts, sides = [row.prompt for row in rows], [row.chosen for row in rows if row.chosen]
    before, policy = _scores(trainer), trainer.scorer.under_policy(prompts, sides)
    # At the start the two are one policy.
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before[:4], policy, strict=True))
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, _scores(trainer), strict=True))
    after = trainer.scorer.under_policy(prompts, sides)
    assert max(float((a - b).abs().max()) for a, b in zip(policy, after, strict=True)) > 0.05


@pytest.mark.parametrize("kind", ["fresh adapter", "existing adapter"])
def test_looking_at_the_reference_leaves_the_adapter(build: Build, model_path: str, tokenizer: Any, kind: str) -> None:
    """Acceptance test 28: gradients, requires_grad flags (also hand-set ones), active adapter and mode stay."""
    trainer = _trainer(build, kind, model_path, tokenizer)
    model: Any = trainer.model
    lora = [(name, p) for name, p in model.named_parameters() if "lora" in name and p.requires_grad]
    # A user may freeze a part of the adapter.
    lora[0][1].requires_grad_(False)
    model.train()
    row = trainer.train_dataset[0]
    ids = torch.tensor([[*row.prompt.token_ids, *row.chosen.token_ids]])
    model(input_ids=ids, labels=ids).loss.backward()
    gradients = {name: p.grad.clone() for name, p in lora[1:]}
    assert any(float(g.abs().max()) > 0 for g in gradients.values())
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    active = model.active_adapter
    _scores(trainer)
    with pytest.raises(RuntimeError, match="inside"), trainer.reference.active():
        raise RuntimeError("inside")
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert model.active_adapter == active
    assert model.training
    for name, parameter in lora[1:]:
        assert torch.equal(parameter.grad, gradients[name])
    assert lora[0][1].grad is None


def test_an_adapter_trained_on_has_itself_as_reference(build: Build, model_path: str, tokenizer: Any) -> None:
    """Going on training an adapter: the reference is the adapter as it came, not the bare base model."""
    trainer = _trainer(build, "existing adapter", model_path, tokenizer)
    base = AutoModelForCausalLM.from_pretrained(model_path)
    row = trainer.train_dataset[0]
    [reference] = trainer.scorer.under_reference([row.prompt], [row.chosen])
    ids = torch.tensor([[*row.prompt.token_ids, *row.chosen.token_ids]])
    table = base(input_ids=ids).logits.detach().log_softmax(-1)[0]
    start = len(row.prompt.token_ids) - 1
    bare = table[start:-1].gather(-1, torch.tensor(row.chosen.token_ids).unsqueeze(-1)).squeeze(-1)
    assert float((reference - bare).abs().max()) > 0.05


@pytest.mark.parametrize("kind", ["full weights", "fresh adapter", "existing adapter"])
def test_a_moving_reference(build: Build, model_path: str, tokenizer: Any, kind: str) -> None:
    """reference <- (1 - a) reference + a policy, on the weights, after every second step that another one follows.

    The last step moves nothing: what is evaluated then is the distance to the reference that was trained against.
    """
    options = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.25, "max_steps": 4}
    policies: dict[int, dict[str, torch.Tensor]] = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            policies[state.global_step] = tiny.weights(kwargs["model"])

    trainer = _trainer(build, kind, model_path, tokenizer, on_alarm="stop", callbacks=[Keep()], **options)
    before = {name: weight.clone() for name, weight in trainer.reference.weights().items()}
    trainer.train()
    policy = policies[2]
    after = trainer.reference.weights()
    assert len(after) > 5
    for name, weight in after.items():
        trained = policy[name.replace(".reference", ".default")]
        assert torch.allclose(weight, 0.75 * before[name] + 0.25 * trained, atol=1e-7), name
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_an_evaluation_at_a_rounds_end_is_against_the_rounds_reference(build: Build) -> None:
    """Not against the policy of that moment, from which every distance is 0."""
    trainer = build(
        method="iterative-dpo", staleness_limit=1, ref_model_sync_steps=2, max_steps=4, eval_strategy="steps",
        eval_steps=2, eval_dataset=tiny.preferences(4),
    )  # fmt: skip
    trainer.train()
    found = [log["eval_kl_k3"] for log in trainer.state.log_history if "eval_kl_k3" in log]
    assert len(found) == 2
    assert min(found) > 1e-3


def test_a_reference_of_the_users_own(build: Build, model_path: str, moved_path: str) -> None:
    by_name = build(ref_model=moved_path)
    loaded = build(ref_model=AutoModelForCausalLM.from_pretrained(moved_path))
    assert by_name.reference.description == "the reference model given"
    assert all(torch.equal(a, b) for a, b in zip(_scores(by_name), _scores(loaded), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(_scores(by_name), _scores(build()), strict=True))
    assert not any(p.requires_grad for p in loaded.reference.module.parameters())  # type: ignore[attr-defined]


def test_the_model_itself_is_no_reference(build: Build, model_path: str, tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_path)
    with pytest.raises(ConfigError, match="ref_model shares its weights with the model"):
        build(model=model, ref_model=model, processing_class=tokenizer)
    assert all(p.requires_grad for p in model.parameters())


def test_a_reference_that_cannot_move_is_refused_at_once(build: Build, tokenizer: Any) -> None:
    other = tiny.llama(len(tokenizer), hidden_size=16)
    with pytest.raises(ConfigError, match=r"is to move toward the policy, but .* has other parameters"):
        build(method="iterative-dpo", ref_model=other)


def test_a_fresh_adapter_depends_on_the_seed_alone(build: Build) -> None:
    torch.manual_seed(1)
    first = tiny.weights(build(out="a", peft_config=_lora()).model)
    torch.manual_seed(2)
    second = tiny.weights(build(out="b", peft_config=_lora()).model)
    other = tiny.weights(build(out="c", peft_config=_lora(), seed=4).model)
    assert tiny.same(first, second)
    assert not tiny.same(first, other)
