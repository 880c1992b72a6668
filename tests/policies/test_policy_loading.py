"""Loading models, tokenizers and adapters; what is refused and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn
from transformers import LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from setsail.core import ConfigError
from setsail.policies import (
    add_adapter,
    base_of,
    disable_dropout,
    generation_config_of,
    is_peft,
    load_causal_lm,
    load_tokenizer,
    prepare_tokenizer,
)


@pytest.fixture
def path(tmp_path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _lora(**changes: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **changes)


def test_float32_unless_told(path: Path) -> None:
    assert load_causal_lm(path).dtype == torch.float32
    assert load_causal_lm(path, {"dtype": "bfloat16"}).dtype == torch.bfloat16
    assert load_causal_lm(path, {"dtype": torch.float16}).dtype == torch.float16


def test_pickled_weights_are_not_loaded(tmp_path: Path, path: Path, model: LlamaForCausalLM) -> None:
    (path / "model.safetensors").unlink()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"no causal language model can be loaded .*safetensors"):
        load_causal_lm(path)


def test_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(it holds: nothing\)"):
        load_causal_lm(tmp_path)


def test_a_name_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is neither a directory here nor a model that can be fetched"):
        load_causal_lm(str(tmp_path / "nowhere"))


def test_no_tokenizer(tmp_path: Path, model: LlamaForCausalLM) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_an_adapter_directory(tmp_path: Path, path: Path) -> None:
    adapted = add_adapter(load_causal_lm(path), _lora(init_lora_weights=False), seed=3)
    adapted.save_pretrained(tmp_path / "adapter")
    assert base_of(tmp_path / "adapter") == str(path)
    assert base_of(path) is None
    loaded = load_causal_lm(tmp_path / "adapter")
    assert is_peft(loaded)
    trained = [name for name, p in loaded.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    assert tiny.same(tiny.weights(adapted), tiny.weights(loaded))
    assert load_tokenizer(tmp_path / "adapter", otherwise=base_of(tmp_path / "adapter")).eos_token == "</s>"


def test_adapters_follow_from_the_seed(path: Path) -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = add_adapter(load_causal_lm(path), _lora(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    second, other = (add_adapter(load_causal_lm(path), _lora(), seed=seed) for seed in (3, 4))
    assert tiny.same(tiny.weights(first), tiny.weights(second))
    assert not tiny.same(tiny.weights(first), tiny.weights(other))


def test_a_second_adapter_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="already carries an adapter"):
        add_adapter(add_adapter(load_causal_lm(path), _lora()), _lora())


def test_generation_config_beside_the_model(path: Path, tmp_path: Path) -> None:
    model = load_causal_lm(path)
    model.generation_config.eos_token_id = [1, 5]
    model.save_pretrained(path)
    assert generation_config_of(str(path)).eos_token_id == [1, 5]  # type: ignore[union-attr]
    assert generation_config_of(model) is model.generation_config
    assert generation_config_of(str(tmp_path / "nowhere")) is None


def test_padding_of_a_tokenizer_without_it() -> None:
    bare = tiny.tokenizer()
    bare.pad_token = None
    assert prepare_tokenizer(bare).pad_token == "</s>"
    bare.eos_token = None
    with pytest.raises(ConfigError, match="declares no EOS token"):
        prepare_tokenizer(bare)


@pytest.mark.parametrize("kind", ["OPT", "Llama with an adapter"])
def test_dropout_is_off_everywhere(kind: str, path: Path) -> None:
    """Modules and numbers alike: in training mode two passes give the same bits."""
    if kind == "OPT":
        shape = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        rates = {"dropout": 0.4, "attention_dropout": 0.4, "layerdrop": 0.5}
        model: Any = OPTForCausalLM(OPTConfig(vocab_size=40, word_embed_proj_dim=16, **shape, **rates))
    else:
        model = add_adapter(load_causal_lm(path), _lora(lora_dropout=0.5, init_lora_weights=False))
    ids = torch.randint(5, 40, (2, 9), generator=torch.Generator().manual_seed(0))
    model.train()
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    disable_dropout(model)
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
