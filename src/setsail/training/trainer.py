"""SailTrainer: a thin ``transformers.Trainer`` around mixture, pairs, loss, alarms and checkpoints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Trainer

from setsail.core import CheckpointError, Completion, ConfigError, Row
from setsail.data import TokenizedPreferences, eos_token_ids
from setsail.engines import TransformersEngine
from setsail.policies import collate, hold_reference, token_logps
from setsail.training import checkpoint, state
from setsail.training.alarms import Alarms, Drift, disagreement
from setsail.training.buffer import PairBuffer
from setsail.training.callbacks import SailCallback
from setsail.training.config import SailConfig
from setsail.training.description import describe_run
from setsail.training.evaluation import Evaluator
from setsail.training.loss import assemble, micro_loss, rows_of
from setsail.training.meter import Meter
from setsail.training.pairs import MadePairs, PairMaker
from setsail.training.run_directory import RunDirectory, pair_record
from setsail.training.scorer import Scorer
from setsail.training.setup import build_labeler, build_policy, build_rows, find_tokenizer
from setsail.training.step import MicroBatch, StepMaker

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from transformers.trainer_utils import TrainOutput


class SailTrainer(Trainer):
    """Trains a causal language model with any method of :mod:`setsail.methods`.

    Args:
        model: path or id, a ``PreTrainedModel``, or a PEFT-wrapped model.
        ref_model: the reference; by default the starting policy, held in the cheapest way (printed at the start).
        args: a :class:`~setsail.training.config.SailConfig`.
        train_dataset: a path or id, a ``datasets`` object, or a list of dicts; see ``docs/data.md``.
        eval_dataset: the same, held out.
        labeler: who labels drawn pairs, where the method asks: a string, a reward model, a callable in TRL's
            reward-function form, a Labeler, or a list of those.
        processing_class: the tokenizer; by default the one beside the model.
        peft_config: wrap the model with a fresh adapter.
        callbacks, optimizers: as in ``transformers.Trainer``.

    Raises:
        DataError: the data cannot be used; raised before any model is loaded.
        ConfigError: the settings cannot be used.

    Example:
        >>> from setsail import SailConfig, SailTrainer, world
        >>> config = SailConfig(method="sail-dpp", output_dir="out", max_steps=50)  # doctest: +SKIP
        >>> trainer = SailTrainer(
        ...     str(world.model_path()), args=config, train_dataset=str(world.pairs_path())
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP

    Source: arXiv 2406.15567 for SAIL; each method's own paper is in ``setsail methods NAME``.
    """

    args: SailConfig
    model: nn.Module
    processing_class: PreTrainedTokenizerBase
    train_dataset: TokenizedPreferences

    _tag_names: ClassVar[list[str]] = ["setsail", "preference-alignment"]
    # The loss is already divided by the number of pairs of the whole step.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: str | PreTrainedModel | nn.Module,
        ref_model: str | nn.Module | None = None,
        args: SailConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        labeler: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        config = args if args is not None else SailConfig(output_dir="setsail-run")
        if not isinstance(config, SailConfig):
            raise ConfigError(f"args must be a SailConfig, got {type(config).__name__}; build one with SailConfig(...)")
        self.method = config.resolved_method()
        tokenizer = find_tokenizer(model, processing_class)
        needs_pairs = self.method.needs_dataset_pairs
        rows = {
            name: build_rows(data, tokenizer, config, needs_pairs=needs_pairs, where=name, model=model)
            for name, data in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset))
            if data is not None
        }
        # After the data, which is refused before any model (a reward model included) is loaded.
        self.labeler = build_labeler(labeler, self.method, config)
        policy = build_policy(model, config, peft_config)
        given = build_policy(ref_model, config, None).model if isinstance(ref_model, str) else ref_model
        self.reference = hold_reference(
            policy.model, fresh_adapter=policy.fresh_adapter, moves=self.method.reference.moves, given=given
        )
        super().__init__(
            model=policy.model,
            args=config,
            data_collator=lambda batch: {"rows": batch},
            train_dataset=rows.get("train_dataset"),
            eval_dataset=rows.get("eval_dataset"),
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        # Older releases ask this instead of loss_is_scaled_for_ga.
        self.model_accepts_loss_kwargs = True
        self.resume_source: Path | None = None
        self.command_settings: dict[str, Any] = {}
        self.parameter_count = sum(parameter.numel() for parameter in self.model.parameters())
        self._place_reference()
        self._build_parts(config, tokenizer)
        self.add_callback(SailCallback(self))

    def _place_reference(self) -> None:
        module = getattr(self.reference, "module", None)
        if isinstance(module, nn.Module):
            module.to(self.args.device)

    def _build_parts(self, config: SailConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.directory = RunDirectory(str(config.output_dir), writes=self.is_world_process_zero())
        self.meter = Meter()
        self.drift = Drift()
        self.alarms = Alarms(self.directory, config.on_alarm == "stop", self._save_state_now)
        self.step_rows: tuple[int, ...] = ()
        self.step_seconds: dict[str, float] = {}
        self.pending_alarms: list[tuple[str, str, tuple[int, ...]]] = []
        self.feed: deque[list[Row]] = deque()
        self.engine = TransformersEngine(
            self.model,
            tokenizer,
            eos_token_ids(tokenizer, getattr(self.model, "generation_config", None)),
            batch_size=config.generation_batch_size,
            context=self.accelerator.autocast,
        )
        rows = max(config.per_device_eval_batch_size, 2 * config.per_device_train_batch_size)
        self.scorer = Scorer(
            model=self.model,
            reference=self.reference,
            engine=self.engine,
            context=self.accelerator.autocast,
            device=config.device,
            batch_size=rows,
        )
        maker = PairMaker(
            self.method,
            self.engine,
            self.labeler,
            sampling=config.sampling,
            n=config.num_generations,
            seed=config.seed,
        )
        self.buffer = PairBuffer(self.method.staleness)
        self.steps = StepMaker(
            maker,
            self.buffer,
            score_reference=self.scorer.under_reference,
            draw_reference=self._draw_reference,
            gather=self.gather,
            processes=self.args.world_size,
            on_made=self._record_pairs,
            seconds=self.step_seconds,
        )

    # Training.

    def train(  # type: ignore[override]  # the options we do not name pass through
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> TrainOutput:
        """Train; ``resume_from_checkpoint=True`` goes on from the newest complete checkpoint of ``output_dir``.

        A resumed run equals the uninterrupted one. If the run was ended before its first complete checkpoint, it
        starts again from its first step.

        Raises:
            ConfigError: ``output_dir`` holds another run, or there is no training data.
            CheckpointError: the checkpoint named is incomplete or damaged.
        """
        if self.train_dataset is None:
            raise ConfigError("there is no train_dataset; pass one to SailTrainer")
        resuming = bool(resume_from_checkpoint)
        self.directory.claim(resuming=resuming)
        source = self._checkpoint_to_resume(resume_from_checkpoint)
        if resuming:
            self.directory.rewind(checkpoint.check(source)["step"] if source else 0)
        describe_run(self, resumed_from=source.name if source else None)
        self.resume_source = source
        try:
            result = super().train(resume_from_checkpoint=str(source) if source else None, **kwargs)
        except BaseException as error:
            self.directory.describe(status="stopped", error=f"{type(error).__name__}: {error}")
            raise
        self.directory.describe(status="finished", step=self.state.global_step, ended=time.time())
        return result

    def _checkpoint_to_resume(self, given: str | bool | None) -> Path | None:
        if isinstance(given, str):
            checkpoint.check(Path(given))
            return Path(given)
        return checkpoint.newest(Path(str(self.args.output_dir))) if given else None

    def get_batch_samples(
        self, epoch_iterator: Iterator[Mapping[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, MicroBatch]], Tensor]:
        """The micro-batches of one step: rows read, completions drawn, labelled and scored by the reference."""
        epoch, version = int(self.state.epoch or 0), self.state.global_step
        window = self.method.staleness + 1
        if not self.feed:
            batches = (window - version % window) * self.args.gradient_accumulation_steps
            self.feed.extend(list(batch["rows"]) for batch in islice(epoch_iterator, batches))
            self.steps.ahead(epoch, [row for rows in self.feed for row in rows], version)
        micro_rows = [self.feed.popleft() for _ in range(min(num_batches, len(self.feed)))]
        if not micro_rows:
            return [], torch.ones(())
        self.step_rows = tuple(row.prompt.row_id for rows in micro_rows for row in rows)
        micro = self.steps.prepare(epoch, micro_rows, version)
        return [{"micro_batch": batch} for batch in micro], torch.ones(())

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one micro-batch, timed."""
        started = time.perf_counter()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.step_seconds["update"] = self.step_seconds.get("update", 0.0) + time.perf_counter() - started
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The micro-batch's share of the step's loss: already a mean over the global batch."""
        batch: MicroBatch = inputs["micro_batch"]
        prompts, completions = rows_of(batch)
        pad_id = self.processing_class.pad_token_id
        tensors = collate(prompts, completions, pad_id=pad_id, device=self.args.device)
        scored = assemble(batch, token_logps(model, tensors))
        loss = micro_loss(self.method, batch, scored, self.meter)
        self._watch(batch, scored.first, scored.second, loss)
        return (loss, {"scored": scored}) if return_outputs else loss

    def _watch(self, batch: MicroBatch, first: Sequence[Tensor], second: Sequence[Tensor], loss: Tensor) -> None:
        rows = tuple(pair.prompt.row_id for pair in batch.pairs)
        if not bool(torch.isfinite(loss)):
            self.pending_alarms.append(("non_finite", f"the loss is {float(loss)}", rows))
        if self.args.disable_dropout and self.model.training:
            low = self.accelerator.mixed_precision != "no" or next(self.model.parameters()).dtype != torch.float32
            message = disagreement(batch, first, second, low)
            if message:
                self.pending_alarms.append(("sampler_disagrees", message, rows))

    # What the parts call back.

    def gather(self, items: list[Any]) -> list[Any]:
        """Every process's items, concatenated; the same list on each."""
        if self.args.world_size == 1:
            return items
        from accelerate.utils import gather_object

        return list(gather_object(items))

    def _draw_reference(self, rows: Sequence[Row], epoch: int) -> list[Completion]:
        limit, seed = self.args.max_completion_length, self.args.seed
        return self.scorer.draw_from_reference(rows, epoch, limit=limit, seed=seed)

    def _record_pairs(self, made: MadePairs) -> None:
        """Write drawn or labelled pairs to the run directory at once: what was paid for is not lost."""
        step = self.state.global_step
        records = [
            pair_record(pair, step)
            for pairs in made.pairs.values()
            for pair in pairs
            if pair.policy_version is not None or pair.labeler not in ("dataset", "policy")
        ]
        everyone = sorted(self.gather(records), key=lambda record: (record["epoch"], record["row_id"]))
        self.directory.append("pairs", everyone)
        for phase, seconds in made.seconds.items():
            self.step_seconds[phase] = self.step_seconds.get(phase, 0.0) + seconds
        for route, missing in made.missing.items():
            seen = sum(1 for pairs in made.pairs.values() for pair in pairs if pair.route == route) + missing
            self.meter.add(f"sail/{route}/missing", [1.0] * missing + [0.0] * max(0, seen - missing))

    # Logs, evaluation, checkpoints.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was measured since the last log, write metrics.jsonl, and pass on to the trackers."""
        if "loss" in logs:
            logs = {**logs, **self.meter.pop(self.gather), "beta": self.method.beta}
            for name, message in self.drift.check(logs):
                self.alarms.sound(name, self.state.global_step, message)
        super().log(logs, start_time)
        self.directory.append("metrics", [{"step": self.state.global_step, **logs}])

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Held-out loss, margin and accuracy of the data set's pairs; KL, length and scores of freshly drawn answers.

        Raises:
            ConfigError: there is no eval_dataset.
        """
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if rows is None:
            raise ConfigError("there is nothing to evaluate on; pass eval_dataset to SailTrainer or to evaluate()")
        if not isinstance(rows, TokenizedPreferences):
            rows = build_rows(
                rows, self.processing_class, self.args, needs_pairs=False, where="eval_dataset", model=self.model
            )
        started = time.perf_counter()
        found = self._evaluator().run(rows, self.state.global_step)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluator(self) -> Evaluator:
        return Evaluator(
            method=self.method,
            engine=self.engine,
            labeler=self.labeler,
            sampling=self.args.sampling,
            seed=self.args.seed,
            generations=self.args.eval_generations,
            score_policy=self.scorer.under_policy,
            score_reference=self.scorer.under_reference,
            gather=self.gather,
            process=self.args.process_index,
            processes=self.args.world_size,
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that counts only once it is complete; the previous one stays until then."""
        directory = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        keep, self.args.save_total_limit = self.args.save_total_limit, None
        if self.is_world_process_zero():
            checkpoint.discard(directory)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            directory.mkdir(parents=True, exist_ok=True)
            checkpoint.write_state(directory, self.args.process_index, state.collect(self))
            if self.is_world_process_zero() and self.method.reference.moves:
                checkpoint.write_reference(directory, self.reference.weights())
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                checkpoint.seal(directory, step=self.state.global_step, processes=self.args.world_size)
                checkpoint.rotate(Path(str(self.args.output_dir)), keep, self.state.best_model_checkpoint)
        except (OSError, RuntimeError) as error:
            raise self._checkpoint_failed(directory, error) from error
        finally:
            self.args.save_total_limit = keep

    def _checkpoint_failed(self, directory: Path, error: Exception) -> CheckpointError:
        checkpoint.discard(directory)
        previous = checkpoint.newest(directory.parent)
        stays = f"the previous one, {previous.name}, is valid" if previous else "there is no earlier one"
        return CheckpointError(
            f"{directory.name} could not be written to {str(directory.parent)!r}: {error}; {stays}. Free "
            "some space (or lower "
            "save_total_limit) and go on with resume_from_checkpoint=True"
        )

    def _save_state_now(self) -> None:
        self._save_checkpoint(self.model, None)

    def floating_point_ops(self, inputs: Any) -> int:
        """Arithmetic of one micro-batch's update: 6 x trainable-path parameters x tokens."""
        prompts, completions = rows_of(inputs["micro_batch"])
        tokens = sum(map(len, prompts)) + sum(map(len, completions))
        return 6 * tokens * self.parameter_count
