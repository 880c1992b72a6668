"""Weighted averages of models' weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import ConfigError
from setsail.policies.loading import is_peft

BOOKKEEPING = frozenset(
    {"_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "initializer_range", "pad_token_id",
     "output_attentions", "output_hidden_states", "return_dict", "torch_dtype", "transformers_version", "use_cache"}
)  # fmt: skip
"""Settings of a model that do not change what its weights compute."""


@torch.no_grad()
def soup(
    models: Sequence[nn.Module | Mapping[str, Tensor]], weights: Sequence[float], *, sum_to_one: bool = True
) -> dict[str, Tensor]:
    """The weighted average of models' weights, ``theta = sum_i weights_i theta_i``.

    Sensible along a connected path only: models fine-tuned from one base. A policy that starts from one of them has a
    KL of more than 0 to the soup at its first step, and its KL cannot be compared with runs against another reference.

    Args:
        models: models of one architecture, or their state dicts; adapters must be merged into their base models, since
            the average of two adapters' factors is not the average of their products.
        weights: one number a model.
        sum_to_one: refuse weights that do not; a sum of differences (task arithmetic) may want other sums.

    Returns:
        A state dict without gradient, which shares no storage with any model, in the first model's dtypes; sums are
        taken in float32 (float64 for float64 weights). Models of weight 0 are not read, and one of weight 1 alone comes
        back bit for bit. Buffers that are not floating must agree.

    Raises:
        ConfigError: numbers of models and weights differ, the weights are not finite or do not sum to 1, or the models
            differ in architecture, names, shapes or integer buffers.

    Source: arXiv 2411.01798 (SALSA): the average of two fine-tuned models as the KL's reference, 1/2 each at best.

    Example:
        >>> first, second = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> average = soup([first, second], [0.25, 0.75])
        >>> torch.equal(average["bias"], 0.25 * first.bias.detach() + 0.75 * second.bias.detach())
        True
        >>> _ = first.load_state_dict(average)
    """
    _check_weights(models, weights, sum_to_one)
    states = [model.state_dict() if isinstance(model, nn.Module) else model for model in models]
    if any(isinstance(model, nn.Module) and is_peft(model) for model in models) or "lora_" in " ".join(states[0]):
        raise ConfigError(
            "a soup averages whole weights, and the average of two adapters' factors is not the average of their "
            "products; merge the adapters first, with model.merge_and_unload()"
        )
    _check_architectures(models)
    _check_states(states)
    counted = [(weight, state) for weight, state in zip(weights, states, strict=True) if weight != 0]
    return {name: _average(name, tensor, counted) for name, tensor in states[0].items()}


def _average(name: str, like: Tensor, counted: Sequence[tuple[float, Mapping[str, Tensor]]]) -> Tensor:
    if not like.is_floating_point():
        return like.detach().clone()
    wide = torch.promote_types(like.dtype, torch.float32)
    # From the first term on rather than from 0, so that one model of weight 1 keeps its every bit.
    terms = (weight * state[name].detach().to(device=like.device, dtype=wide) for weight, state in counted)
    total = next(terms, torch.zeros_like(like, dtype=wide))
    for term in terms:
        total = total + term
    return total.to(like.dtype).contiguous()


def _check_weights(models: Sequence[Any], weights: Sequence[float], sum_to_one: bool) -> None:
    if not models or len(models) != len(weights):
        raise ConfigError(f"a soup needs one weight a model, got {len(models)} models and {len(weights)} weights")
    if not all(math.isfinite(weight) for weight in weights):
        raise ConfigError(f"the weights of a soup must be finite numbers, got {list(weights)}")
    if sum_to_one and abs(math.fsum(weights) - 1) > 1e-6:
        raise ConfigError(
            f"the weights of a soup must sum to 1, got {list(weights)} with sum {math.fsum(weights):g}; divide them by "
            "their sum, or pass sum_to_one=False if another sum is meant"
        )


def _check_architectures(models: Sequence[nn.Module | Mapping[str, Tensor]]) -> None:
    modules = [model for model in models if isinstance(model, nn.Module)]
    for number, module in enumerate(modules[1:], start=2):
        if type(module) is not type(modules[0]):
            raise ConfigError(
                f"a soup mixes models of one architecture, got {type(modules[0]).__name__} and, as model {number}, "
                f"{type(module).__name__}"
            )
        first, other = _settings(modules[0]), _settings(module)
        odd = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if odd:
            key = odd[0]
            raise ConfigError(
                f"a soup mixes models of one architecture, but model {number} has {key}={other.get(key)!r} where "
                f"the first has {first.get(key)!r} ({len(odd)} settings differ); if that changes nothing in what the "
                "weights compute, pass the models' state_dict() instead"
            )


def _settings(module: nn.Module) -> dict[str, Any]:
    config: Any = getattr(module, "config", None)
    plain: Mapping[str, Any] = config.to_dict() if hasattr(config, "to_dict") else {}
    return {key: value for key, value in plain.items() if key not in BOOKKEEPING and "drop" not in key}


def _check_states(states: Sequence[Mapping[str, Tensor]]) -> None:
    first = states[0]
    for number, state in enumerate(states[1:], start=2):
        if odd := sorted(first.keys() ^ state.keys()):
            where = "the first model" if odd[0] in first else f"model {number}"
            raise ConfigError(
                f"a soup mixes models of one architecture, but {len(odd)} weights are in one of models 1 and {number} "
                f"alone: {odd[0]!r} is only in {where}"
            )
        for name, tensor in first.items():
            if tensor.shape != state[name].shape:
                raise ConfigError(
                    f"a soup mixes models of one architecture, but {name!r} has shape {tuple(tensor.shape)} in the "
                    f"first model and {tuple(state[name].shape)} in model {number}"
                )
            if not tensor.is_floating_point() and not torch.equal(tensor, state[name].to(tensor.device)):
                raise ConfigError(
                    f"{name!r} is not a floating tensor, so it cannot be averaged, and differs between the first model "
                    f"and model {number}; give models that agree in it"
                )
