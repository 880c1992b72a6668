"""Next-token logits of a batch that is being decoded: the prompts once, then one token a row, through the KV cache.

Axis legend: ``B`` prompts of a batch, ``P`` prompt width, ``R = B * copies`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from setsail.policies import forward_arguments, positions

Opened = Callable[[], AbstractContextManager[nn.Module]]
"""Enters a context in which the module it gives computes the model: adapters are switched there."""


class Stepper(Protocol):
    """What decoding needs of a model. Logits are float32, shape ``(R, V)``."""

    def prefill(self, input_ids: Tensor, mask: Tensor, copies: int) -> Tensor:
        """Read the prompts (shape ``(B, P)``, padded on the left); logits of the first token of each row."""
        ...

    def forward(self, token: Tensor) -> Tensor:
        """Read one token a row (shape ``(R,)``); logits of the next."""
        ...

    def compact(self, keep: Tensor) -> None:
        """Keep the rows at these indices, drop the others from the cache."""
        ...


class CachedModel:
    """One causal language model with its KV cache.

    Args:
        opened: entered around each forward pass, so that two policies that share a module can take turns.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened = opened

    def prefill(self, input_ids: Tensor, mask: Tensor, copies: int) -> Tensor:
        """Each prompt once; its keys and values are then repeated for its ``copies`` rows."""
        with self.opened() as model:
            self.accepted = forward_arguments(model)
            arguments: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self.accepted else {}
            if "position_ids" in self.accepted:
                arguments["position_ids"] = positions(mask)
            output = model(input_ids=input_ids, attention_mask=mask, use_cache=True, **arguments)
        self.cache = output.past_key_values
        if copies > 1:
            self.cache.batch_repeat_interleave(copies)
        self.mask = mask.repeat_interleave(copies, dim=0)
        logits: Tensor = output.logits[:, -1].float()
        return logits.repeat_interleave(copies, dim=0)

    def forward(self, token: Tensor) -> Tensor:
        """One more token a row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        arguments: dict[str, Any] = {}
        if "position_ids" in self.accepted:
            arguments["position_ids"] = self.mask.sum(-1, keepdim=True) - 1
        with self.opened() as model:
            output = model(
                input_ids=token.unsqueeze(-1),
                attention_mask=self.mask,
                past_key_values=self.cache,
                use_cache=True,
                **arguments,
            )
        self.cache = output.past_key_values
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def compact(self, keep: Tensor) -> None:
        """Rows leave the cache and the mask."""
        self.cache.batch_select_indices(keep)
        self.mask = self.mask[keep]
