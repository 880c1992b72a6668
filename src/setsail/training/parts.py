"""The parts of a trainer, built from its config: engine, scorer, step maker, evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from setsail.core import Completion, Row
from setsail.data import eos_token_ids
from setsail.engines import TransformersEngine
from setsail.labelers import ImplicitReward
from setsail.training.buffer import GroupBuffer
from setsail.training.evaluation import Evaluator
from setsail.training.facts import FactMaker
from setsail.training.groups import GroupMaker, MadeGroups
from setsail.training.run_directory import MADE, file_of, group_record
from setsail.training.scorer import Scorer
from setsail.training.step import StepMaker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from setsail.training.config import SailConfig
    from setsail.training.trainer import SailTrainer


def build_engine(trainer: SailTrainer, config: SailConfig, tokenizer: PreTrainedTokenizerBase) -> TransformersEngine:
    """What draws answers from the policy."""
    model: Any = trainer.model
    return TransformersEngine(
        model,
        tokenizer,
        eos_token_ids(tokenizer, getattr(model, "generation_config", None)),
        batch_size=config.generation_batch_size,
        context=trainer.accelerator.autocast,
    )


def build_scorer(trainer: SailTrainer, config: SailConfig) -> Scorer:
    """What scores answers without gradient."""
    return Scorer(
        model=trainer.model,
        frozen=trainer.frozen,
        engine=trainer.engine,
        context=trainer.accelerator.autocast,
        device=config.device,
        batch_size=max(config.per_device_eval_batch_size, 2 * config.per_device_train_batch_size),
        share=config.share_prompts,
    )


def build_steps(trainer: SailTrainer, config: SailConfig, buffer: GroupBuffer) -> StepMaker:
    """What prepares optimizer steps."""
    scorer, method = trainer.scorer, trainer.method
    maker = GroupMaker(
        method,
        scorer.engine_for,
        trainer.labeler,
        sampling=config.sampling,
        n=method.generations,
        seed=config.seed,
        implicit=ImplicitReward(scorer.implicit_scores, length_calibrated=True),
        margins=partial(scorer.implicit_margins, beta=method.beta),
        gather=trainer.gather,
    )

    def draw_reference(rows: Sequence[Row], epoch: int) -> list[Completion]:
        return scorer.draw_from_reference(rows, epoch, limit=config.max_completion_length, seed=config.seed)

    def on_made(made: MadeGroups) -> None:
        record_groups(trainer, made)

    return StepMaker(
        maker,
        buffer,
        score_reference=scorer.under_reference,
        draw_reference=draw_reference,
        gather=trainer.gather,
        processes=config.world_size,
        on_made=on_made,
        facts=trainer.facts,
        seconds=trainer.step_seconds,
    )


def build_facts(trainer: SailTrainer) -> FactMaker:
    """What works out the numbers of the global batch that an objective asks for."""
    scorer = trainer.scorer
    return FactMaker(
        trainer.method,
        score_policy=scorer.under_policy,
        score_reference=scorer.under_reference,
        gather=trainer.gather,
    )


def build_evaluator(trainer: SailTrainer, config: SailConfig) -> Evaluator:
    """What evaluates held-out rows."""
    return Evaluator(
        method=trainer.method,
        engine=trainer.engine,
        labeler=trainer.labeler,
        sampling=config.sampling,
        seed=config.seed,
        generations=config.eval_generations,
        score_policy=trainer.scorer.under_policy,
        score_reference=trainer.scorer.under_reference,
        gather=trainer.gather,
        process=config.process_index,
        processes=config.world_size,
    )


def record_groups(trainer: SailTrainer, made: MadeGroups) -> None:
    """Write drawn or labeled groups to the run directory at once: what was paid for is not lost."""
    step = trainer.state.global_step
    records = [
        group_record(group, step)
        for groups in made.groups.values()
        for group in groups
        if group.policy_version is not None or group.labeler not in ("dataset", "policy")
    ]
    everyone = sorted(trainer.gather(records), key=lambda record: (record["epoch"], record["row_id"]))
    for kind in MADE:
        trainer.directory.append(kind, [record for record in everyone if file_of(record) == kind])
    if everyone:
        trainer.last_record = everyone[-1]
    for phase, seconds in made.seconds.items():
        trainer.step_seconds[phase] += seconds
    for route, labeled in made.labeled.items():
        missing = made.missing.get(route, 0)
        trainer.meter.add(f"sail/{route}/missing", [1.0] * missing + [0.0] * (labeled - missing))
    for route, scores in made.scores.items():
        trainer.meter.add(f"sail/{route}/score", scores)
