"""The loss of one micro-batch under the model in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from setsail.policies import completion_distributions, completion_logps
from setsail.training.alarms import agreement, faults
from setsail.training.batch import MicroBatch
from setsail.training.loss import Distributions, Scored, assemble, micro_loss

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer


def update_loss(trainer: SailTrainer, model: nn.Module, batch: MicroBatch) -> tuple[Tensor, Scored]:
    """The micro-batch's share of the step's loss, already a mean over the global batch, and what it was made from."""
    logps = completion_logps(
        model,
        batch.prompt_ids,
        batch.completion_ids,
        pad_id=trainer.processing_class.pad_token_id,
        device=trainer.args.device,
        share=trainer.args.share_prompts,
    )
    scored = assemble(batch, logps)
    loss = micro_loss(trainer.method, batch, scored, trainer.meter, _distributions(trainer, model, batch))
    # With dropout, or back from a look-ahead, training scores another policy than the one that was sampled.
    precision = trainer.accelerator.mixed_precision
    came_back = trainer.lookahead is not None and trainer.lookahead.snapshot is None
    same = trainer.args.disable_dropout and not came_back
    allowed = agreement(trainer.model, precision) if same else None
    trainer.pending_alarms += faults(batch, scored.tokens, float(loss.detach()), allowed)
    return loss, scored


def _distributions(trainer: SailTrainer, model: nn.Module, batch: MicroBatch) -> Distributions:
    """Next-token distributions of some answers, computed only where an added term asks for them."""

    def compute(indices: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        prompts = [batch.prompt_ids[i] for i in indices]
        completions = [batch.completion_ids[i] for i in indices]
        pad_id, device = trainer.processing_class.pad_token_id, trainer.args.device

        def under(module: nn.Module) -> list[Tensor]:
            return completion_distributions(module, prompts, completions, pad_id=pad_id, device=device)

        with trainer.frozen.reference.active() as reference, torch.no_grad():
            frozen = under(reference)
        return under(model), frozen

    return compute
