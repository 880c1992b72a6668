"""Decoding two models together: the next token is drawn from the mixture of their log-probs.

Axis legend: ``R`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import ConfigError, EngineError
from setsail.engines.in_process import TransformersEngine
from setsail.engines.stepping import CachedModel, Stepper
from setsail.policies import Reference


class MixtureEngine(TransformersEngine):
    """Draws each token from the geometric mixture of a policy and its reference, renormalized at every step.

        log pi_mix(token | prefix) = (1 - weight) log pi(token | prefix) + weight log pi_ref(token | prefix) - log Z

    A ``weight`` between 0 and 1 interpolates; a negative one extrapolates away from the reference, one above 1 away
    from the policy. At 0 and at 1 the completions are, token for token and for the same streams, those of the policy
    and of the reference; the model that does not count is not run. In between both models read every prompt once and
    every token once, each through its own KV cache, and finished rows leave both.

    A completion's ``logp`` is its log-prob under this token-wise mixture, before ``sampling`` reshapes it. The
    token-wise mixture is not the normalized mixture of whole completions' probabilities: Z depends on the prefix.

    Args:
        model: the policy, a causal LM, unwrapped; left as it was found.
        reference: the other model, over the same vocabulary; entered by ``reference.active()`` for each of its forward
            passes, since with adapters both are one module.
        tokenizer, eos_token_ids, batch_size, context: as in :class:`TransformersEngine`.
        weight: of the reference; any finite number.
        origin: who is said to have written the completions.

    Raises:
        ConfigError: the weight is not finite.
        EngineError: no EOS id is known; or, when drawing, the vocabularies differ, or the mixture is not finite:
            broken weights, or an extrapolation away from a model that gives a token probability 0.

    Source: arXiv 2312.00886 (the mixture opponent of Nash-MD, applied token by token; its coefficient is the weight of
    the reference); arXiv 2409.19605 (logit mixing; the two samplers have weights -1/2 and 1/2).

    Example:
        >>> from types import SimpleNamespace
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from setsail.core import Prompt, Sampling
        >>> from setsail.policies import hold_reference
        >>> shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> policy = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=None, eos_token_id=1, **shape))
        >>> reference = hold_reference(policy, fresh_adapter=False, moves=False)
        >>> decoder = SimpleNamespace(pad_token_id=0, batch_decode=lambda rows, **_: [str(row) for row in rows])
        >>> engine = MixtureEngine(policy, reference, decoder, [1], weight=0.25)
        >>> [group] = engine.generate(
        ...     [Prompt(row_id=0, text="", token_ids=(5, 3))], n=2, sampling=Sampling(max_completion_length=4),
        ...     streams=[("sample", 0, 0)], seed=0, policy_version=0,
        ... )
        >>> [completion.origin for completion in group.completions]
        ['mixture', 'mixture']
    """

    def __init__(
        self,
        model: nn.Module,
        reference: Reference,
        tokenizer: Any,
        eos_token_ids: Sequence[int],
        *,
        weight: float,
        batch_size: int = 16,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        origin: str = "mixture",
    ) -> None:
        if not math.isfinite(weight):
            raise ConfigError(f"the weight of the reference in the mixture must be a finite number, got {weight}")
        super().__init__(model, tokenizer, eos_token_ids, batch_size=batch_size, context=context, origin=origin)
        self.reference = reference
        self.weight = weight

    def _modules(self) -> list[nn.Module]:
        with self.reference.active() as module:
            return [self.model, module]

    def _stepper(self) -> Stepper:
        parts = ((1 - self.weight, lambda: nullcontext(self.model)), (self.weight, self.reference.active))
        return MixedModels([(share, CachedModel(opened)) for share, opened in parts if share != 0])


class MixedModels:
    """Several models read the same tokens; their logits are summed, ``sum_i share_i * logits_i``.

    Log-probs are logits up to one constant a row and model, which no distribution notices: only the sum is
    normalized, where a log-prob is asked for.
    """

    def __init__(self, parts: Sequence[tuple[float, Stepper]]) -> None:
        self.parts = tuple(parts)

    def prefill(self, input_ids: Tensor, mask: Tensor, copies: int) -> Tensor:
        """Every model reads the prompts."""
        return self._mixed([stepper.prefill(input_ids, mask, copies) for _, stepper in self.parts])

    def forward(self, token: Tensor) -> Tensor:
        """Every model reads one more token a row."""
        return self._mixed([stepper.forward(token) for _, stepper in self.parts])

    def compact(self, keep: Tensor) -> None:
        """The same rows leave every model's cache."""
        for _, stepper in self.parts:
            stepper.compact(keep)

    def _mixed(self, logits: Sequence[Tensor]) -> Tensor:
        sizes = [each.shape[-1] for each in logits]
        if len(set(sizes)) > 1:
            raise EngineError(
                f"the policy and the reference have vocabularies of {' and '.join(map(str, sizes))} tokens, so their "
                "log-probs cannot be mixed; give a reference with the policy's own vocabulary"
            )
        mixed = self.parts[0][0] * logits[0]
        for (share, _), each in zip(self.parts[1:], logits[1:], strict=True):
            mixed = mixed + share * each
        if all(share > 0 for share, _ in self.parts):
            return mixed
        # A token that no model can draw stays one: with a negative share, minus infinity would meet plus infinity.
        impossible = reduce(torch.maximum, logits) == -torch.inf
        return mixed.masked_fill(impossible, -torch.inf)
