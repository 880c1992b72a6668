"""The weighted product of two frozen policies, as what a policy is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from setsail.core import ConfigError
from setsail.policies.references import REFERENCE, Reference

SIDES = ("first", "second")


class ProductReference:
    """The geometric mixture of two frozen policies' completions, without its normalizer.

        log pi_ref(y|x) = share log pi_first(y|x) + (1 - share) log pi_second(y|x)      [+ log Z(x), left out]

    ``Z(x)`` is the same for every completion of a prompt and cancels in the log-ratio difference of a pair; a single
    completion's log-prob is off by it, so objectives that read one completion at a time, and KL estimates, are not for
    a product. There is no module that computes a product: a scorer enters the :attr:`parts` one after the other.

    Args:
        first: the anchor; INPO's initial policy, whose share is tau/eta.
        second: the other policy; INPO's iterate of the last round.
        share: of the first policy, in [0, 1].
        moving: the sides that :meth:`move`, :meth:`follow`, :meth:`weights` and :meth:`restore` act on.
        name: tells several frozen policies of one run apart.

    Raises:
        ConfigError: the share is outside [0, 1], or a side is not ``"first"`` or ``"second"``.

    Source: arXiv 2407.00617, the loss of INPO: its two log-ratio terms are this product's.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from setsail.policies import hold_reference
        >>> shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> policy = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=None, eos_token_id=1, **shape))
        >>> start, last = (
        ...     hold_reference(policy, fresh_adapter=False, moves=moves, name=name)
        ...     for name, moves in (("start", False), ("last", True))
        ... )
        >>> product = ProductReference(start, last, share=0.25)
        >>> [(held.name, share) for held, share in product.parts]
        [('start', 0.25), ('last', 0.75)]
        >>> product.description
        'product of 0.25 x frozen copy of the starting policy and 0.75 x frozen copy of the starting policy'
    """

    def __init__(
        self,
        first: Reference,
        second: Reference,
        share: float,
        *,
        moving: Sequence[str] = ("second",),
        name: str = REFERENCE,
    ) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"the first policy's share of a product must lie in [0, 1], got {share}")
        if unknown := set(moving) - set(SIDES):
            raise ConfigError(f"the sides of a product are called 'first' and 'second', got {sorted(unknown)}")
        self.first, self.second, self.share = first, second, share
        self.moving = tuple(side for side in SIDES if side in moving)
        self.name = name
        sides = ((share, first), (1 - share, second))
        self.description = "product of " + " and ".join(f"{part:g} x {held.description}" for part, held in sides)

    @property
    def parts(self) -> Sequence[tuple[Reference, float]]:
        """Policies that can be entered, with shares that sum to 1; those without a share are left out."""
        sides = ((self.first, self.share), (self.second, 1 - self.share))
        return [(held, share * inner) for side, share in sides for held, inner in side.parts if share * inner != 0]

    def active(self) -> AbstractContextManager[nn.Module]:
        """Refused: no module computes a product.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"the {self.description} is known up to a normalizer that no module computes, so it cannot be entered or "
            "drawn from; score its parts one by one, and draw from one of them"
        )

    def move(self, mixup: float) -> None:
        """The moving policies take over the policy's weights: ``pi_ref <- (1 - mixup) pi_ref + mixup pi``.

        Raises:
            ConfigError: a moving policy is held in a way that cannot move.
        """
        for side in self._moving().values():
            side.move(mixup)

    def follow(self, other: Reference) -> None:
        """The moving policies take over another frozen policy's weights.

        Raises:
            ConfigError: they are held in another way.
        """
        for side in self._moving().values():
            side.follow(other)

    def weights(self) -> dict[str, Tensor]:
        """The moving policies' weights, each name behind its side's."""
        return {
            f"{side}.{name}": each for side, held in self._moving().items() for name, each in held.weights().items()
        }

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load what :meth:`weights` returned."""
        for side, held in self._moving().items():
            prefix = f"{side}."
            held.restore({key.removeprefix(prefix): each for key, each in weights.items() if key.startswith(prefix)})

    def _moving(self) -> dict[str, Reference]:
        return {side: getattr(self, side) for side in self.moving}
