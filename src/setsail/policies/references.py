"""A frozen policy, held in one of three ways: a frozen copy, the base under an adapter, a frozen adapter.

Each offers ``active()``, a context in which the yielded module computes the frozen policy, and leaves the policy under
training as it was: the same active adapter, the same parameters that want gradient, the same gradients. Several can be
held beside one policy, each under its own name: the reference, an opponent, the iterate before the last.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from setsail.core import ConfigError
from setsail.policies.loading import is_peft

REFERENCE = "reference"
"""Name of the frozen policy that objectives compare with."""


class Reference(Protocol):
    """A policy that is not trained; ``description`` says which, for people, and ``name`` tells several apart."""

    description: str
    name: str

    @property
    def parts(self) -> Sequence[tuple[Reference, float]]:
        """Frozen policies that can be entered, with shares: the log-prob is the sum of share times log-prob."""
        ...

    def active(self) -> Any:
        """A context manager that yields a module computing the frozen policy."""
        ...

    def move(self, mixup: float) -> None:
        """``pi_ref <- (1 - mixup) pi_ref + mixup pi`` on the weights."""
        ...

    def follow(self, other: Reference) -> None:
        """``pi_ref <- pi_other``: take over the weights of another frozen policy."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The frozen policy's own weights, for a checkpoint."""
        ...

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load what :meth:`weights` returned."""
        ...


def _freeze(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False).eval()


@contextmanager
def _same_flags(policy: nn.Module) -> Iterator[None]:
    """Afterwards the parameters that want gradient are those that want it now; PEFT's switches set the flags anew."""
    flags = [(parameter, parameter.requires_grad) for parameter in policy.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class _Frozen(ABC):
    """What the holders have in common: weights of their own, each standing for one of the policy's."""

    description: str

    def __init__(self, policy: Any, name: str) -> None:
        self.policy = policy
        self.name = name

    @property
    def parts(self) -> Sequence[tuple[Reference, float]]:
        """This policy alone."""
        return [(self, 1.0)]

    @abstractmethod
    def active(self) -> AbstractContextManager[nn.Module]:
        """A context that yields a module computing the frozen policy."""

    @abstractmethod
    def _own(self) -> dict[str, nn.Parameter]:
        """The frozen weights by name."""

    @abstractmethod
    def _space(self) -> tuple[object, ...]:
        """Holders that give the same here keep weights that can be exchanged, if names and shapes agree too."""

    def _stands_for(self, name: str) -> str:
        """The name of the policy's weight that a frozen one corresponds to."""
        return name

    def counterparts(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Frozen weights with the policy's."""
        moving = dict(self.policy.named_parameters())
        return [(weight, moving[self._stands_for(name)]) for name, weight in self._own().items()]

    @torch.no_grad()
    def move(self, mixup: float) -> None:
        """``pi_ref <- (1 - mixup) pi_ref + mixup pi`` on the weights."""
        for frozen, trained in self.counterparts():
            frozen.lerp_(trained.detach().to(frozen), mixup)

    @torch.no_grad()
    def follow(self, other: Reference) -> None:
        """``pi_ref <- pi_other``, bit for bit where the dtypes are one.

        Raises:
            ConfigError: the other is held in another way, or is another model.
        """
        own = {self._stands_for(name): weight for name, weight in self._own().items()}
        theirs: dict[str, nn.Parameter] = {}
        if isinstance(other, _Frozen) and self._space() == other._space():
            theirs = {other._stands_for(name): weight for name, weight in other._own().items()}
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in theirs.items()}:
            raise ConfigError(
                f"{self.name!r} ({self.description}) cannot take over the weights of {other.name!r} "
                f"({other.description}): they are not of one kind; hold both with hold_reference(policy, moves=True, "
                "...), and give no model of another architecture"
            )
        for name, weight in own.items():
            weight.copy_(theirs[name])

    def weights(self) -> dict[str, Tensor]:
        """The frozen weights, for a checkpoint."""
        return {name: weight.detach() for name, weight in self._own().items()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load what :meth:`weights` returned."""
        for name, weight in self._own().items():
            weight.copy_(weights[name])


class FrozenCopy(_Frozen):
    """A copy of the starting policy (full-weight training), or a model that the user gave.

    Args:
        policy: the model to train; copied where no ``reference`` is given.
        reference: the user's own model; frozen here.
        name: tells several frozen policies apart.
    """

    def __init__(self, policy: nn.Module, reference: nn.Module | None = None, name: str = REFERENCE) -> None:
        super().__init__(policy, name)
        self.module = _freeze(copy.deepcopy(policy) if reference is None else reference)
        self.description = "frozen copy of the starting policy" if reference is None else "the reference model given"

    def counterparts(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Frozen weights with the policy's.

        Raises:
            ConfigError: the two are different models.
        """
        own, moving = self._own(), dict(self.policy.named_parameters())
        if {name: weight.shape for name, weight in own.items()} != {name: each.shape for name, each in moving.items()}:
            raise ConfigError(
                "the reference is to move toward the policy, but the reference model given has other parameters; "
                "leave out ref_model (a copy of the policy is held then), or keep it fixed with sync_ref_model=False"
            )
        return super().counterparts()

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The copy; nothing needs switching."""
        yield self.module

    def _own(self) -> dict[str, nn.Parameter]:
        return dict(self.module.named_parameters())

    def _space(self) -> tuple[object, ...]:
        return ("whole models",)


class DisabledAdapter(_Frozen):
    """The base model under a fresh adapter: the adapter switched off. Costs no memory; cannot move."""

    description = "the base model, adapter disabled"

    def __init__(self, policy: Any, name: str = REFERENCE) -> None:
        super().__init__(policy, name)

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The policy's own module with its adapters switched off."""
        with _same_flags(self.policy), self.policy.disable_adapter():
            yield self.policy

    def move(self, mixup: float) -> None:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the base model under an adapter cannot move; hold the reference as a frozen adapter instead")

    def follow(self, other: Reference) -> None:
        """Refused.

        Raises:
            ConfigError: always.
        """
        self.move(1.0)

    def _own(self) -> dict[str, nn.Parameter]:
        return {}

    def _space(self) -> tuple[object, ...]:
        return ("base model", id(self.policy))


class FrozenAdapter(_Frozen):
    """One more adapter beside the trained one, frozen, starting as its copy. The base model is shared.

    Any number can be held beside one trained adapter, each under its own name; the policy still saves only the trained
    one.

    Args:
        policy: a PEFT model with the trained adapter active.
        name: of the adapter.

    Raises:
        ConfigError: the model has an adapter or a module of that name.
    """

    description = "frozen copy of the starting adapter"

    def __init__(self, policy: Any, name: str = REFERENCE) -> None:
        super().__init__(policy, name)
        self.trained = str(policy.active_adapter)
        if name in policy.peft_config:
            raise ConfigError(
                f"the model already has an adapter named {name!r}, which setsail needs for its {name}; rename it"
            )
        if self._own():
            raise ConfigError(
                f"the model has a module named {name!r}, which an adapter of that name could not be told from; give "
                "the frozen policy another name"
            )
        with _same_flags(policy):
            policy.add_adapter(name, copy.deepcopy(policy.peft_config[self.trained]))
            policy.set_adapter(self.trained)
        for weight in self._own().values():
            weight.requires_grad_(False)
        # Only the trained adapter belongs to the result: frozen ones are not written beside it.
        policy.save_pretrained = partial(policy.save_pretrained, selected_adapters=[self.trained])
        self.move(1.0)

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The policy's own module with the frozen adapter in the place of the active one."""
        before = str(self.policy.active_adapter)
        with _same_flags(self.policy):
            try:
                self.policy.set_adapter(self.name)
                yield self.policy.requires_grad_(False)
            finally:
                self.policy.set_adapter(before)

    def _own(self) -> dict[str, nn.Parameter]:
        return {name: each for name, each in self.policy.named_parameters() if self.name in name.split(".")}

    def _stands_for(self, name: str) -> str:
        return ".".join(self.trained if part == self.name else part for part in name.split("."))

    def _space(self) -> tuple[object, ...]:
        return ("adapters", id(self.policy))


def hold_reference(
    policy: Any, *, fresh_adapter: bool, moves: bool, given: nn.Module | None = None, name: str = REFERENCE
) -> Reference:
    """The cheapest way to hold a frozen policy that is right for ``policy``.

    Args:
        policy: the model to train.
        fresh_adapter: the policy carries an adapter that was just added, so the base model is the starting policy.
        moves: the frozen policy will move during training, or take over another's weights.
        given: a reference model of the user's own.
        name: tells several frozen policies of one run apart: ``"reference"``, ``"opponent"``.

    Raises:
        ConfigError: ``given`` is the policy itself, or cannot move as it should; the name is taken.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> policy = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=None, eos_token_id=1, **shape))
        >>> reference = hold_reference(policy, fresh_adapter=False, moves=True)
        >>> opponent = hold_reference(policy, fresh_adapter=False, moves=True, name="opponent")
        >>> opponent.follow(reference)  # the iterate before the last: first the opponent takes the reference's weights,
        >>> reference.move(1.0)         # then the reference takes the policy's
        >>> reference.name, opponent.description
        ('reference', 'frozen copy of the starting policy')
    """
    if given is not None:
        shared = {id(parameter) for parameter in policy.parameters()} & {id(each) for each in given.parameters()}
        if shared:
            raise ConfigError(
                "ref_model shares its weights with the model, so it would be trained (or the model frozen) with it; "
                "leave ref_model out to have a frozen copy held, or load it a second time"
            )
        held = FrozenCopy(policy, given, name)
        if moves:
            held.counterparts()
        return held
    if not is_peft(policy):
        return FrozenCopy(policy, name=name)
    return FrozenAdapter(policy, name) if moves or not fresh_adapter else DisabledAdapter(policy, name)
