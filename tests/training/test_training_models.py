"""Kinds of models: adapters, precisions, checkpointed activations, other architectures; what is saved can be loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import Build
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from setsail import SailTrainer

ONLINE: dict[str, Any] = {"method": "sail-dpr", "route_weights": "dpr=0.6", "max_steps": 3, "on_alarm": "stop"}
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.1,
}  # fmt: skip
IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}


def architecture(name: str, vocabulary: int) -> Any:
    """A random model of a kind that differs from Llama in what matters to sampling and scoring."""
    torch.manual_seed(0)
    kinds: dict[str, Any] = {
        "learned positions (GPT-2)": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128, **IDS)
        ),
        "dropout as numbers (OPT)": lambda: OPTForCausalLM(
            OPTConfig(
                vocab_size=vocabulary, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=128, word_embed_proj_dim=32, dropout=0.3, attention_dropout=0.3, **IDS,
            )
        ),
        "sliding window (Mistral)": lambda: MistralForCausalLM(
            MistralConfig(vocab_size=vocabulary, sliding_window=6, **SHAPE, **IDS)
        ),
        "alternating windows, soft caps (Gemma 2)": lambda: Gemma2ForCausalLM(
            Gemma2Config(vocab_size=vocabulary, sliding_window=6, query_pre_attn_scalar=8, **SHAPE, **IDS)
        ),
        "normed queries (Qwen 3)": lambda: Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, **SHAPE, **IDS)),
        "tied embeddings": lambda: tiny.llama(vocabulary, tie_word_embeddings=True),
        "untied embeddings": lambda: tiny.llama(vocabulary, tie_word_embeddings=False),
    }  # fmt: skip
    return kinds[name]()


ARCHITECTURES = (
    "learned positions (GPT-2)", "dropout as numbers (OPT)", "sliding window (Mistral)",
    "alternating windows, soft caps (Gemma 2)", "normed queries (Qwen 3)", "tied embeddings", "untied embeddings",
)  # fmt: skip


def _losses(trainer: SailTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def _healthy(trainer: SailTrainer) -> None:
    before = tiny.weights(trainer.model)
    trainer.train()
    assert len(_losses(trainer)) == 3
    assert all(math.isfinite(loss) and 0.2 < loss < 1.5 for loss in _losses(trainer))
    assert not tiny.same(before, tiny.weights(trainer.model))
    assert trainer.directory.read("alarms") == []
    pairs = trainer.directory.read("pairs")
    assert len(pairs) >= 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(build: Build, tokenizer: Any, name: str) -> None:
    """Three on-policy steps without an alarm, so that what was sampled is what is scored."""
    model = architecture(name, len(tokenizer))
    trainer = build(model=model, processing_class=tokenizer, max_completion_length=12, **ONLINE)
    _healthy(trainer)
    if name == "tied embeddings":
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_saved_can_be_loaded(build: Build, tokenizer: Any, tmp_path: Path, name: str) -> None:
    trainer = build(model=architecture(name, len(tokenizer)), processing_class=tokenizer, max_steps=1)
    trainer.train()
    trainer.save_model()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert tiny.same(tiny.weights(trainer.model), tiny.weights(loaded))
    text = tiny.SENTENCES[3]
    assert AutoTokenizer.from_pretrained(tmp_path / "run")(text).input_ids == tokenizer(text).input_ids


# Adapters.


def _lora(**changes: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **changes)


@pytest.fixture
def adapter_path(model_path: str, tmp_path: Path) -> str:
    """An adapter directory without a tokenizer, as peft writes it."""
    from peft import get_peft_model

    torch.manual_seed(2)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model_path), _lora(init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter")


def test_fresh_adapter(build: Build, tmp_path: Path, model_path: str) -> None:
    trainer = build(peft_config=_lora(), **ONLINE)
    frozen = {name: weight for name, weight in tiny.weights(trainer.model).items() if "lora" not in name}
    _healthy(trainer)
    after = tiny.weights(trainer.model)
    assert tiny.same(frozen, {name: after[name] for name in frozen})
    trainer.save_model()
    _only_the_trained_adapter(trainer, tmp_path / "run", model_path)


def test_adapter_directory(build: Build, tmp_path: Path, adapter_path: str, model_path: str) -> None:
    """A path that holds only an adapter: its base is loaded, its tokenizer is the base's, it is trained on."""
    trainer = build(model=adapter_path, **ONLINE)
    _healthy(trainer)
    trainer.save_model()
    _only_the_trained_adapter(trainer, tmp_path / "run", model_path)


def _only_the_trained_adapter(trainer: SailTrainer, folder: Path, base: str) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    saved = load_file(folder / "adapter_model.safetensors")
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(saved) == len(trained) == 8
    assert not (folder / "reference").exists()
    assert not (folder / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    again = dict(loaded.named_parameters())
    assert all(torch.equal(again[name], p) for name, p in trained.items())


def test_an_adapter_on_an_adapter_is_refused(build: Build, adapter_path: str) -> None:
    from setsail.core import ConfigError

    with pytest.raises(ConfigError, match="already carries an adapter"):
        build(model=adapter_path, peft_config=_lora())


def test_a_frozen_adapter_is_refused(build: Build, adapter_path: str, tokenizer: Any, model_path: str) -> None:
    from peft import PeftModel

    from setsail.core import ConfigError

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_path), adapter_path)
    with pytest.raises(ConfigError, match="no parameter of the model is trainable"):
        build(model=model, processing_class=tokenizer)


# Precision and memory.


def test_low_precision_weights(build: Build) -> None:
    trainer = build(model_init_kwargs={"dtype": "bfloat16"}, learning_rate=1e-2, **ONLINE)
    assert next(trainer.model.parameters()).dtype == torch.bfloat16
    _healthy(trainer)


def test_mixed_precision(build: Build) -> None:
    """bf16 autocast: float32 weights, and the sampler runs in the same precision as the scorer."""
    trainer = build(bf16=True, **ONLINE)
    assert next(trainer.model.parameters()).dtype == torch.float32
    _healthy(trainer)
    plain = build(out="plain", **ONLINE)
    plain.train()
    assert _losses(trainer) == pytest.approx(_losses(plain), abs=0.02)
    assert _losses(trainer) != _losses(plain)


@pytest.mark.parametrize("adapter", [False, True])
def test_checkpointed_activations(build: Build, adapter: bool) -> None:
    """The same gradients from recomputed activations, with sampling in between."""
    recorders = []
    for name, on in (("on", True), ("off", False)):
        recorder = tiny.Recorder()
        options = {"gradient_checkpointing": on, "peft_config": _lora(init_lora_weights=False) if adapter else None}
        trainer = build(out=name, callbacks=[recorder], max_grad_norm=0.0, **ONLINE, **options)
        trainer.train()
        assert trainer.directory.read("alarms") == []
        recorders.append(recorder)
    for on, off in zip(recorders[0].gradients, recorders[1].gradients, strict=True):
        assert tiny.relative_difference(off, on) < 1e-5


def test_gradients_are_clipped(build: Build) -> None:
    recorder = tiny.Recorder()
    trainer = build(max_grad_norm=1e-3, callbacks=[recorder], max_steps=2)
    trainer.train()
    norms = [float(torch.stack([g.norm() for g in each.values()]).norm()) for each in recorder.gradients]
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)
    assert trainer.state.log_history[0]["grad_norm"] > 0.1


# Tokenizers.


def test_end_of_turn_tokens_of_a_named_model(build: Build, tmp_path: Path, chat_tokenizer: Any) -> None:
    """A model that declares its end-of-turn token in the generation config alone: both ids end answers, also when the
    model is given by its path."""
    turn = chat_tokenizer.convert_tokens_to_ids("<|user|>")
    model = tiny.llama(len(chat_tokenizer))
    model.generation_config.eos_token_id = [1, turn]
    model.save_pretrained(tmp_path / "chat")
    chat_tokenizer.save_pretrained(tmp_path / "chat")
    messages = [
        {
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "chosen": [{"role": "assistant", "content": tiny.SENTENCES[i % 3]}],
            "rejected": [{"role": "assistant", "content": f"no {i}"}],
        }
        for i in range(8)
    ]
    trainer = build(model=str(tmp_path / "chat"), data=messages, method="sail-dpp", max_steps=2)
    assert trainer.engine.eos_token_ids == (1, turn)
    assert trainer.train_dataset._tokenizer.eos_token_ids == (1, turn)
    trainer.train()
    assert all(math.isfinite(loss) for loss in _losses(trainer))


def test_logged_completions_are_shown(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    build(method="online-dpo", max_steps=1, log_completions=True).train()
    shown = capsys.readouterr().out
    assert "route dpr: question" in shown
    assert "chosen (preferred with probability" in shown


def test_run_json_and_settings(build: Build, tmp_path: Path) -> None:
    build(**ONLINE).train()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["status"], run["step"], run["method"], run["rows"]) == ("finished", 3, "sail-dpr", 24)
    assert run["routes"] == {"offline": 0.4, "dpr": 0.6}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0] or environment["versions"]["torch"]
