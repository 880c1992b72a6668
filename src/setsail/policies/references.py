"""The reference policy, held in one of three ways: a frozen copy, the base under an adapter, a frozen adapter.

Each offers ``active()``, a context in which the yielded module computes the reference, and leaves the policy as it
was: the same active adapter, the same parameters that want gradient, the same gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from setsail.core import ConfigError
from setsail.policies.loading import is_peft

REFERENCE_ADAPTER = "reference"


class Reference(Protocol):
    """A policy that is not trained; ``description`` says which, for people."""

    description: str

    def active(self) -> Any:
        """A context manager that yields a module computing the reference policy."""
        ...

    def move(self, mixup: float) -> None:
        """``pi_ref <- (1 - mixup) pi_ref + mixup pi`` on the weights."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The reference's own weights, for a checkpoint."""
        ...

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load what :meth:`weights` returned."""
        ...


def _freeze(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False).eval()


class FrozenCopy:
    """A copy of the starting policy (full-weight training), or a reference model the user gave."""

    def __init__(self, policy: nn.Module, reference: nn.Module | None = None) -> None:
        self.policy = policy
        self.module = _freeze(copy.deepcopy(policy) if reference is None else reference)
        self.description = "frozen copy of the starting policy" if reference is None else "the reference model given"

    def counterparts(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Reference parameters with the policy's.

        Raises:
            ConfigError: the two are different models.
        """
        moving, own = dict(self.policy.named_parameters()), dict(self.module.named_parameters())
        if {name: weight.shape for name, weight in own.items()} != {name: each.shape for name, each in moving.items()}:
            raise ConfigError(
                "the reference is to move toward the policy, but the reference model given has other parameters; "
                "leave out ref_model (a copy of the policy is held then), or keep it fixed with sync_ref_model=False"
            )
        return [(weight, moving[name]) for name, weight in own.items()]

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        yield self.module

    @torch.no_grad()
    def move(self, mixup: float) -> None:
        for reference, trained in self.counterparts():
            reference.lerp_(trained.detach().to(reference), mixup)

    def weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.module.named_parameters()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.module.named_parameters():
            parameter.copy_(weights[name])


class DisabledAdapter:
    """The base model under a fresh adapter: the adapter switched off. Costs no memory; cannot move."""

    description = "the base model, adapter disabled"

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        flags = {name: parameter.requires_grad for name, parameter in self.policy.named_parameters()}
        try:
            with self.policy.disable_adapter():
                yield self.policy
        finally:
            # Switching the adapter on again makes all of it want gradient, also what the user had frozen.
            for name, parameter in self.policy.named_parameters():
                parameter.requires_grad_(flags[name])

    def move(self, mixup: float) -> None:
        raise ConfigError("the base model under an adapter cannot move; hold the reference as a frozen adapter instead")

    def weights(self) -> dict[str, Tensor]:
        return {}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        return None


class FrozenAdapter:
    """A second, frozen adapter beside the trained one, starting as its copy. The base model is shared."""

    description = "frozen copy of the starting adapter"

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.trained = str(policy.active_adapter)
        if REFERENCE_ADAPTER in policy.peft_config:
            raise ConfigError(
                f"the model already has an adapter named {REFERENCE_ADAPTER!r}, which setsail needs for its "
                "reference; rename it"
            )
        flags = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
        policy.add_adapter(REFERENCE_ADAPTER, copy.deepcopy(policy.peft_config[self.trained]))
        # Only the trained adapter belongs to the result: the reference is not written beside it.
        policy.save_pretrained = partial(policy.save_pretrained, selected_adapters=[self.trained])
        self._switch(self.trained, flags)
        self.move(1.0)

    def _switch(self, adapter: str, flags: Mapping[str, bool]) -> None:
        """Make ``adapter`` the active one; parameters want gradient as ``flags`` says (new ones do not)."""
        self.policy.set_adapter(adapter)
        for name, parameter in self.policy.named_parameters():
            parameter.requires_grad_(flags.get(name, False))

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        flags = {name: parameter.requires_grad for name, parameter in self.policy.named_parameters()}
        self._switch(REFERENCE_ADAPTER, {})
        try:
            yield self.policy
        finally:
            self._switch(self.trained, flags)

    def _own(self) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
        """Reference parameters with their trained counterparts."""
        parameters = dict(self.policy.named_parameters())
        pairs = {}
        for name, parameter in parameters.items():
            if REFERENCE_ADAPTER in name.split("."):
                pairs[name] = (parameter, parameters[name.replace(f".{REFERENCE_ADAPTER}", f".{self.trained}")])
        return pairs

    @torch.no_grad()
    def move(self, mixup: float) -> None:
        for reference, trained in self._own().values():
            reference.lerp_(trained.detach().to(reference), mixup)

    def weights(self) -> dict[str, Tensor]:
        return {name: reference.detach() for name, (reference, _) in self._own().items()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, (reference, _) in self._own().items():
            reference.copy_(weights[name])


def hold_reference(policy: Any, *, fresh_adapter: bool, moves: bool, given: nn.Module | None = None) -> Reference:
    """The cheapest way to hold the reference that is right for ``policy``.

    Args:
        policy: the model to train.
        fresh_adapter: the policy carries an adapter that was just added, so the base model is the starting policy.
        moves: the reference will move during training.
        given: a reference model of the user's own.

    Raises:
        ConfigError: ``given`` is the policy itself, or cannot move as it should.
    """
    if given is not None:
        shared = {id(parameter) for parameter in policy.parameters()} & {id(each) for each in given.parameters()}
        if shared:
            raise ConfigError(
                "ref_model shares its weights with the model, so it would be trained (or the model frozen) with it; "
                "leave ref_model out to have a frozen copy held, or load it a second time"
            )
        held = FrozenCopy(policy, given)
        if moves:
            held.counterparts()
        return held
    if not is_peft(policy):
        return FrozenCopy(policy)
    return FrozenAdapter(policy) if moves or not fresh_adapter else DisabledAdapter(policy)
