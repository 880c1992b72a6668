"""Loading causal language models, their tokenizers and adapters. Safe by default: no remote code, no pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from setsail.core import ConfigError

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_causal_lm(source: str | Path, init_kwargs: Mapping[str, Any] | None = None) -> PreTrainedModel:
    """The causal LM at ``source``: a directory, or a hub id.

    Args:
        source: path or id. A directory that holds only an adapter is loaded onto its base model, trainable.
        init_kwargs: passed to ``from_pretrained``; ``dtype`` may be a name and is float32 unless given.

    Raises:
        ConfigError: nothing can be loaded from ``source``, with the reason.
    """
    from transformers import AutoModelForCausalLM

    kwargs = {"dtype": "float32", "use_safetensors": True, "trust_remote_code": False, **(init_kwargs or {})}
    kwargs["dtype"] = DTYPES.get(kwargs["dtype"], kwargs["dtype"])
    try:
        if (Path(source) / "adapter_config.json").is_file():
            adapted: PreTrainedModel = _load_adapter(source, kwargs)
            return adapted
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(source), **kwargs)
        return model
    except (OSError, ValueError) as error:
        raise ConfigError(_why_not_loaded(source, error)) from error


def _load_adapter(source: str | Path, kwargs: dict[str, Any]) -> Any:
    from peft import AutoPeftModelForCausalLM

    kwargs.pop("use_safetensors")
    return AutoPeftModelForCausalLM.from_pretrained(str(source), is_trainable=True, **kwargs)


def _why_not_loaded(source: str | Path, error: Exception) -> str:
    path = Path(source)
    if path.is_dir():
        held = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        return (
            f"no causal language model can be loaded from {str(source)!r} (it holds: {held}): "
            f"{_first_line(error)}; give a "
            "directory with config.json and safetensors weights, as save_pretrained writes it"
        )
    return (
        f"model {str(source)!r} is neither a directory here nor a model that can be fetched: "
        f"{_first_line(error)}; check the "
        "path, or the id and the network"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def base_of(source: str | Path) -> str | None:
    """The base model that an adapter directory names; None for anything else."""
    file = Path(source) / "adapter_config.json"
    if not file.is_file():
        return None
    base: str | None = json.loads(file.read_text()).get("base_model_name_or_path")
    return base


def generation_config_of(model: Any) -> GenerationConfig | None:
    """The generation config of a model, or beside the model at a path or id; None where there is none.

    Read before the model itself: the tokens that end an answer are needed to tokenize the data.
    """
    from transformers import GenerationConfig

    if not isinstance(model, (str, Path)):
        found: GenerationConfig | None = getattr(model, "generation_config", None)
        return found
    try:
        return GenerationConfig.from_pretrained(base_of(model) or str(model))
    except (OSError, ValueError):
        return None


def load_tokenizer(source: str | Path, otherwise: str | Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer beside the model at ``source``, else the one at ``otherwise``.

    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except Exception as error:
        if otherwise is not None:
            return load_tokenizer(otherwise)
        raise ConfigError(
            f"no tokenizer can be loaded from {str(source)!r}: {_first_line(error)}; save one there with "
            "tokenizer.save_pretrained(...), or pass processing_class="
        ) from error


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer without a pad token its EOS as pad; padding is masked everywhere, so its value never counts.

    Raises:
        ConfigError: it has no EOS token, so that answers could not end.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the tokenizer declares no EOS token, so no completion could end; set tokenizer.eos_token before training"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_peft(model: nn.Module) -> bool:
    """Whether ``model`` is wrapped by PEFT."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def add_adapter(model: PreTrainedModel, config: PeftConfig, seed: int = 0) -> Any:
    """``model`` with a fresh trainable adapter, whose first weights follow from ``seed`` alone.

    Raises:
        ConfigError: the model already carries one.
    """
    from peft import get_peft_model

    if is_peft(model):
        raise ConfigError(
            "a peft_config was given, but the model already carries an adapter; pass the model alone to go "
            "on training its "
            "adapter, or merge it first with model.merge_and_unload()"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config, autocast_adapter_dtype=False)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, so that scoring and sampling see the same policy."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
            continue
        # Many models keep the probability as a number and call the function: attention_dropout, dropout, layerdrop.
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
