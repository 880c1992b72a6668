"""The same batch through TRL's DPOTrainer: the same loss and the same gradient of every parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import AutoModelForCausalLM

trl = pytest.importorskip("trl", reason="trl is not installed: nothing to compare with")

EPSILON = 0.15
LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dpo": ({"method": "dpo"}, {"loss_type": ["sigmoid"]}),
    "ipo": ({"method": "ipo", "length_normalize": True}, {"loss_type": ["ipo"]}),
    "slic": ({"method": "slic"}, {"loss_type": ["hinge"]}),
    # Smoothed labels as a sum of two of TRL's losses:
    # (1-e) L(u) + e L(-u) = 2 (1-e) L(u) - (1-2e) robust,  robust = ((1-e) L(u) - e L(-u)) / (1-2e).
    "smoothed": (
        {"method": "dpo", "label_smoothing": EPSILON},
        {
            "loss_type": ["sigmoid", "robust"],
            "loss_weights": [2 * (1 - EPSILON), -(1 - 2 * EPSILON)],
            "label_smoothing": EPSILON,
        },
    ),
}


def _rows() -> list[dict[str, str]]:
    """Answers begin with a space, so that a tokenizer cuts prompt and answer alike, apart or together."""
    return [
        {
            "prompt": f"question {i}",
            "chosen": f" {tiny.SENTENCES[i][: 8 + 5 * i]}",
            "rejected": f" {tiny.SENTENCES[-i]}",
        }
        for i in range(1, 4)
    ]


def _noise(model: Any) -> None:
    """The same noise on the trained weights of both trainers' models (adapters: in their place), so that log-ratios
    are not zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.1 * noise if "lora" in name else parameter + 0.01 * noise)
                assert "ref" not in name.split(".")


def _models(kind: str, path: str) -> tuple[Any, Any]:
    """Two equal models and the adapter config to pass on: full weights, a fresh adapter, an existing adapter."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for _ in range(2)]
    if kind != "existing adapter":
        return models, lora if kind == "fresh adapter" else None
    adapted = []
    for model in models:
        torch.manual_seed(1)
        adapted.append(get_peft_model(model, lora))
    return adapted, None


def _theirs(model: Any, lora: Any, path: str, folder: Path, tokenizer: Any, options: Any) -> tuple[float, Any, Any]:
    config = trl.DPOConfig(
        str(folder / "trl"), use_cpu=True, bf16=False, report_to="none", beta=0.1, max_length=None,
        gradient_checkpointing=False, per_device_train_batch_size=3, disable_tqdm=True, **options,
    )  # fmt: skip
    from datasets import Dataset

    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    peft = {"peft_config": lora} if lora is not None else {}
    given = {} if lora is not None or hasattr(model, "peft_config") else {"ref_model": reference}
    trainer = trl.DPOTrainer(
        model, args=config, train_dataset=Dataset.from_list(_rows()), processing_class=tokenizer, **peft, **given
    )
    _noise(trainer.model)
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    named = trainer.model.named_parameters()
    return float(loss.detach()), {name: p.grad for name, p in named if p.grad is not None}, batch


@pytest.mark.parametrize("kind", ["full weights", "fresh adapter", "existing adapter"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_equal_trl(
    build: Build, tokenizer: Any, model_path: str, tmp_path: Path, kind: str, name: str
) -> None:
    ours, theirs = LOSSES[name]
    models, lora = _models(kind, model_path)
    expected, gradients, batch = _theirs(models[1], lora, model_path, tmp_path, tokenizer, theirs)
    recorder = tiny.Recorder()
    trainer = build(
        model=models[0], peft_config=lora, data=_rows(), callbacks=[recorder], max_steps=1, max_grad_norm=0.0,
        per_device_train_batch_size=3, train_sampling_strategy="sequential", beta=0.1, processing_class=tokenizer,
        max_completion_length=200, **ours,
    )  # fmt: skip
    _same_tokens(trainer, batch)
    _noise(trainer.model)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert len(gradients) >= 8
    assert tiny.relative_difference(gradients, recorder.gradients[0]) < 1e-5
    for parameter, gradient in gradients.items():
        gap = float((recorder.gradients[0][parameter] - gradient).norm())
        assert gap <= 1e-5 * float(gradient.norm()) + 1e-7, parameter


def _same_tokens(trainer: Any, batch: Any) -> None:
    """Both trainers read the same ids: prompt, answer and the EOS after it."""
    for i, row in enumerate(trainer.train_dataset):
        for side, completion in ((i, row.chosen), (i + 3, row.rejected)):
            ids, mask = batch["input_ids"][side], batch["completion_mask"][side].bool()
            assert tuple(ids[mask].tolist()) == completion.token_ids
            assert completion.token_ids[-1] == trainer.processing_class.eos_token_id
            before = ids[batch["attention_mask"][side].bool() & ~mask].tolist()
            assert tuple(before) == row.prompt.token_ids
