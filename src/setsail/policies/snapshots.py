"""The weights under training and the optimizer's state, kept aside and put back exactly."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import CheckpointError, ConfigError

WEIGHT, STATE, NUMBER = "weight", "state", "number"
"""First parts of the names in :meth:`Snapshot.weights`."""


def trainable(policy: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that want gradient, by name.

    Raises:
        ConfigError: there is none.
    """
    found = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    if not found:
        raise ConfigError("no parameter of the policy wants gradient, so there is nothing to keep; make one trainable")
    return found


def same_names(kept: Mapping[str, Any], own: Mapping[str, nn.Parameter], what: str) -> None:
    """Refuse weights that are not those of this policy.

    Raises:
        CheckpointError: the names differ, with one that does.
    """
    if kept.keys() != own.keys():
        odd = sorted(kept.keys() ^ own.keys())
        raise CheckpointError(
            f"{what} holds {len(kept)} weights and the policy trains {len(own)}; {len(odd)} are on one side alone, "
            f"{odd[0]!r} for one; restore into the policy it was taken from"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What an optimizer step changes, as it was at one moment: trainable weights and the optimizer's state.

    Extragradient methods step from theta_t to a look-ahead point, put theta_t back, and step again from there with a
    gradient that the look-ahead point decided. Weights, moments and step counts return bit for bit, in their dtypes; a
    parameter without state at that moment has none afterwards. Learning rates and the other settings of the optimizer's
    groups are left alone: they belong to the schedule, which counts its own steps. Gradients are left alone as well.

    A snapshot can be restored any number of times.

    Attributes:
        parameters: copies of the trainable weights, by name.
        state: copies of each parameter's optimizer state, by name; none where the optimizer had none.

    Source: arXiv 2503.08942 (EGPO): parameters and optimizer state are saved before the half step and restored for
    the full one.

    Example:
        >>> policy = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
        >>> before = policy.weight.item()
        >>> snapshot = Snapshot.take(policy, optimizer)
        >>> policy(torch.ones(1)).sum().backward()
        >>> optimizer.step()
        >>> policy.weight.item() == before
        False
        >>> snapshot.restore(policy, optimizer)
        >>> policy.weight.item() == before, len(optimizer.state)
        (True, 0)
    """

    parameters: Mapping[str, Tensor]
    state: Mapping[str, Mapping[str, Any]]

    @classmethod
    def take(cls, policy: nn.Module, optimizer: Any) -> Snapshot:
        """Copy what there is now.

        Args:
            policy: its parameters that want gradient are kept.
            optimizer: a torch optimizer, or a wrapper with its ``state``.

        Raises:
            ConfigError: no parameter wants gradient.
        """
        own = trainable(policy)
        return cls(
            parameters={name: parameter.detach().clone() for name, parameter in own.items()},
            state={
                name: {key: _copied(value) for key, value in optimizer.state[parameter].items()}
                for name, parameter in own.items()
                if parameter in optimizer.state
            },
        )

    @torch.no_grad()
    def restore(self, policy: nn.Module, optimizer: Any) -> None:
        """Put weights and optimizer state back.

        Raises:
            CheckpointError: the policy trains other parameters.
        """
        own = trainable(policy)
        same_names(self.parameters, own, "the snapshot")
        on_device = _counts_on_device(optimizer)
        for name, parameter in own.items():
            parameter.copy_(self.parameters[name])
            optimizer.state.pop(parameter, None)
            if name in self.state:
                optimizer.state[parameter] = {
                    # torch keeps an optimizer's step counts on the CPU, unless its kernels read them on the device.
                    key: _copied(value, None if key == "step" and parameter not in on_device else parameter.device)
                    for key, value in self.state[name].items()
                }

    def weights(self) -> dict[str, Tensor]:
        """Everything as one flat dictionary of tensors, which safetensors can write; numbers become 0-dim tensors.

        Raises:
            CheckpointError: the optimizer keeps something that is neither a tensor nor a number.
        """
        flat = {f"{WEIGHT}/{name}": each for name, each in self.parameters.items()}
        for name, entries in self.state.items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    flat[f"{STATE}/{name}/{key}"] = value
                elif isinstance(value, bool | int | float):
                    exact = torch.float64 if isinstance(value, float) else None
                    flat[f"{NUMBER}/{name}/{key}"] = torch.tensor(value, dtype=exact)
                else:
                    raise CheckpointError(
                        f"the optimizer keeps {key!r} of {name!r} as {type(value).__name__}, which a checkpoint cannot "
                        "hold; use an optimizer whose state is tensors and numbers"
                    )
        return flat

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> Snapshot:
        """What :meth:`weights` gave, as a snapshot again."""
        parameters: dict[str, Tensor] = {}
        state: dict[str, dict[str, Any]] = {}
        for label, value in weights.items():
            kind, name = label.split("/", 1)
            if kind == WEIGHT:
                parameters[name] = value
                continue
            name, key = name.rsplit("/", 1)
            state.setdefault(name, {})[key] = value if kind == STATE else value.item()
        return cls(parameters, state)


def _copied(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device=device, copy=True)
    return copy.deepcopy(value)


def _counts_on_device(optimizer: Any) -> set[nn.Parameter]:
    """Parameters whose step count lies beside them."""
    return {
        parameter
        for group in optimizer.param_groups
        if group.get("fused") or group.get("capturable")
        for parameter in group["params"]
    }
