"""Sampling from a causal language model in this process: KV cache always on, one prefill for n completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from setsail.core import Candidates, EngineError, Prompt, Sampling
from setsail.engines.decoding import Decoding
from setsail.engines.stepping import CachedModel, Stepper


class TransformersEngine:
    """Draws completions from the model that is being trained (or from any other in this process).

    Args:
        model: a causal LM, unwrapped; left as it was found (training mode included).
        tokenizer: decodes answers; gives the pad id.
        eos_token_ids: every id that ends an answer.
        batch_size: prompts prefilled at once.
        context: entered around the forward passes (mixed precision); must match the scoring passes'.
        origin: who is said to have written the completions: ``"policy"``, ``"reference"``, ``"opponent"``, ...
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        eos_token_ids: Sequence[int],
        *,
        batch_size: int = 16,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        origin: str = "policy",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.eos_token_ids = ends(eos_token_ids)
        self.batch_size = batch_size
        self.context = context
        self.origin = origin

    @torch.no_grad()
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
        """Draw ``n`` completions of each prompt.

        Returns:
            One group a prompt, in order. Each completion carries the log-prob of its tokens under the model at
            temperature 1, whatever ``sampling`` says.

        Raises:
            EngineError: the model gives logits that are not finite.
        """
        modes = [(module, module.training) for module in self._modules()]
        for module, _ in modes:
            module.eval()
        device = next(self.model.parameters()).device
        groups: dict[int, Candidates] = {}
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index].token_ids), index))
        try:
            with self.context():
                for start in range(0, len(order), self.batch_size):
                    chunk = order[start : start + self.batch_size]
                    batch, names = [prompts[index] for index in chunk], [streams[index] for index in chunk]
                    decoding = Decoding(
                        self._stepper(), batch, n, sampling, names, seed, tokenizer=self.tokenizer,
                        eos_token_ids=self.eos_token_ids, origin=self.origin, device=device,
                    )  # fmt: skip
                    for index, completions in zip(chunk, decoding.run(), strict=True):
                        groups[index] = Candidates(
                            prompt=prompts[index],
                            completions=completions,
                            policy_version=policy_version,
                            stream=streams[index],
                        )
        finally:
            for module, was_training in modes:
                module.train(was_training)
        return [groups[index] for index in range(len(prompts))]

    def _modules(self) -> list[nn.Module]:
        """Every module that computes: all of them draw in evaluation mode."""
        return [self.model]

    def _stepper(self) -> Stepper:
        """What gives the logits of one batch."""
        return CachedModel(lambda: nullcontext(self.model))


def ends(eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    """The ids that end an answer.

    Raises:
        EngineError: there is none.
    """
    if not eos_token_ids:
        raise EngineError("no EOS id is known, so no completion could end; give the tokenizer an eos_token")
    return tuple(eos_token_ids)
