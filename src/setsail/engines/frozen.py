"""Sampling from a policy that is not trained: the reference, an earlier iterate, an opponent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from setsail.core import Candidates, Prompt, Sampling
from setsail.engines.in_process import TransformersEngine, ends
from setsail.policies import Reference


class FrozenEngine:
    """Draws completions from a frozen policy, entered once for a whole call.

    Args:
        reference: holds the frozen policy; where it shares a module with the policy under training, that module is
            left as it was found: adapter, gradient flags and training mode.
        tokenizer, eos_token_ids, batch_size, context: as in :class:`TransformersEngine`.
        origin: who is said to have written the completions: ``"reference"``, ``"opponent"``.

    Raises:
        EngineError: no EOS id is known.

    Example:
        >>> from types import SimpleNamespace
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from setsail.core import Prompt, Sampling
        >>> from setsail.policies import hold_reference
        >>> shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> policy = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=None, eos_token_id=1, **shape))
        >>> held = hold_reference(policy, fresh_adapter=False, moves=False, name="opponent")
        >>> decoder = SimpleNamespace(pad_token_id=0, batch_decode=lambda rows, **_: [str(row) for row in rows])
        >>> engine = FrozenEngine(held, decoder, [1], origin="opponent")
        >>> [group] = engine.generate(
        ...     [Prompt(row_id=0, text="", token_ids=(5, 3))], n=1, sampling=Sampling(max_completion_length=4),
        ...     streams=[("opponent", 0, 0)], seed=0, policy_version=0,
        ... )
        >>> group.completions[0].origin
        'opponent'
    """

    def __init__(
        self,
        reference: Reference,
        tokenizer: Any,
        eos_token_ids: Sequence[int],
        *,
        batch_size: int = 16,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        origin: str = "reference",
    ) -> None:
        self.reference = reference
        self.tokenizer = tokenizer
        self.eos_token_ids = ends(eos_token_ids)
        self.batch_size = batch_size
        self.context = context
        self.origin = origin

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        sampling: Sampling,
        streams: Sequence[tuple[int | str, ...]],
        seed: int,
        policy_version: int,
    ) -> list[Candidates]:
        """Draw ``n`` completions of each prompt; see :meth:`TransformersEngine.generate`.

        ``policy_version`` is recorded as given: the optimizer step at which the draw was made, or at which the frozen
        policy took its weights.

        Raises:
            ConfigError: the frozen policy is a product of several and cannot be drawn from.
            EngineError: the model gives logits that are not finite.
        """
        with self.reference.active() as model:
            engine = TransformersEngine(
                model,
                self.tokenizer,
                self.eos_token_ids,
                batch_size=self.batch_size,
                context=self.context,
                origin=self.origin,
            )
            return engine.generate(
                prompts, n=n, sampling=sampling, streams=streams, seed=seed, policy_version=policy_version
            )
