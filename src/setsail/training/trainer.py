"""SailTrainer: a thin ``transformers.Trainer`` around mixture, pairs, loss, alarms and checkpoints."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Trainer

from setsail.core import ConfigError, Row
from setsail.data import TokenizedPreferences
from setsail.policies import Lookahead, Reference
from setsail.training.alarms import Alarms, Drift, Fault
from setsail.training.batch import MicroBatch
from setsail.training.buffer import GroupBuffer
from setsail.training.callbacks import SailCallback
from setsail.training.config import SailConfig
from setsail.training.feed import Feed
from setsail.training.labeling import build_labeler
from setsail.training.meter import Meter
from setsail.training.parts import build_engine, build_evaluator, build_facts, build_scorer, build_steps
from setsail.training.resuming import take_directory
from setsail.training.run_directory import RunDirectory
from setsail.training.saving import save
from setsail.training.setup import (
    build_data,
    build_frozen,
    build_policy,
    build_rows,
    find_tokenizer,
)
from setsail.training.update import update_loss

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
        data = build_data(train_dataset, eval_dataset, tokenizer, config, self.method, model)
        # After the data, which is refused before any model (a reward model included) is loaded.
        self.labeler = build_labeler(labeler, self.method, config, tokenizer, self._next_log_probs)
        policy = build_policy(model, config, peft_config)
        self.frozen = build_frozen(policy, ref_model, self.method, config)
        super().__init__(
            model=policy.model,
            args=config,
            data_collator=as_rows,
            train_dataset=data[0],
            eval_dataset=data[1],
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        # Older releases ask this instead of loss_is_scaled_for_ga.
        self.model_accepts_loss_kwargs = True
        self.started = False
        self.resume_source: Path | None = None
        self.saved_step: int | None = None
        self.command_settings: dict[str, Any] = {}
        self.parameter_count = sum(parameter.numel() for parameter in self.model.parameters())
        self._build_parts(config, tokenizer)
        self.events = SailCallback(self)
        self.add_callback(self.events)

    def _build_parts(self, config: SailConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.frozen.to(config.device)
        self.directory = RunDirectory(str(config.output_dir), writes=self.is_world_process_zero())
        self.meter, self.drift = Meter(), Drift()
        self.alarms = Alarms(self.directory, config.on_alarm == "stop", self._save_state_now)
        self.step_rows: tuple[int, ...] = ()
        self.step_seconds: defaultdict[str, float] = defaultdict(float)
        self.pending_alarms: list[Fault] = []
        self.last_record: dict[str, Any] | None = None
        self.buffer = GroupBuffer(self.method.staleness)
        self.lookahead = Lookahead() if self.method.update == "extragradient" else None
        self.feed = Feed(
            process=config.process_index,
            processes=config.world_size,
            rows=0 if self.train_dataset is None else len(self.train_dataset),
            batch_size=config.per_device_train_batch_size,
        )
        self.engine = build_engine(self, config, tokenizer)
        self.scorer = build_scorer(self, config)
        self.facts = build_facts(self)
        self.steps = build_steps(self, config, self.buffer)

    @property
    def reference(self) -> Reference:
        """The policy of the log-ratios."""
        return self.frozen.reference

    def _next_log_probs(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float] | None]:
        """What the policy, as its own judge, is asked for: the scorer is built after the labeler."""
        return self.scorer.next_log_probs(prompts, tokens)

    # Training.

    def train(  # type: ignore[override]  # the options we do not name pass through
        self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None, **kwargs: Any
    ) -> TrainOutput:
        """Train; ``resume_from_checkpoint=True`` goes on from the newest complete checkpoint of ``output_dir``.

        A resumed run equals the uninterrupted one. If the run was ended before its first complete checkpoint, it
        starts again from its first step.

        Raises:
            ConfigError: ``output_dir`` holds another run, the run to be resumed is not this one, or there is no
                training data.
            CheckpointError: the checkpoint named is incomplete or damaged.
        """
        if self.train_dataset is None:
            raise ConfigError("there is no train_dataset; pass one to SailTrainer")
        source = take_directory(self, resume_from_checkpoint)
        self.resume_source, self.started = source, True
        try:
            result = super().train(resume_from_checkpoint=str(source) if source else None, **kwargs)
        except BaseException as error:
            # The directory may be what failed (a full disk): the first error is the one to report.
            with suppress(OSError):
                self.directory.describe(status="stopped", error=f"{type(error).__name__}: {error}")
            raise
        self.directory.describe(status="finished", step=self.state.global_step, ended=time.time())
        return result._replace(training_loss=result.metrics["train_loss"])

    def get_batch_samples(
        self, epoch_iterator: Iterator[Mapping[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, MicroBatch]], Tensor]:
        """The micro-batches of one step: rows read, completions drawn, labeled and scored by the reference."""
        done, version = float(self.state.epoch or 0.0), self.state.global_step
        epoch, window = int(done), self.method.staleness + 1
        rows: list[Row] | None = None
        if not len(self.feed):
            batches = (window - version % window) * self.args.gradient_accumulation_steps
            loader: Any = self.callback_handler.train_dataloader
            passed = round((done - epoch) * len(loader))
            rows = self.feed.read(epoch_iterator, batches, passed)
        if not len(self.feed):
            return [], torch.ones(())
        self.events.before_step(version)
        # Also where this process has no row of its own: processes gather there, and must do so together.
        if rows is not None:
            self.steps.ahead(epoch, rows, version)
        micro_rows = self.feed.take(num_batches)
        self.step_rows = tuple(row.prompt.row_id for micro in micro_rows for row in micro.rows)
        micro = self.steps.prepare(epoch, micro_rows, version)
        if self.lookahead is not None:
            self.lookahead.before_update(version, self.model, self.optimizer)
        return [{"micro_batch": batch} for batch in micro], torch.ones(())

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one micro-batch, timed."""
        started = time.perf_counter()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.step_seconds["update"] += time.perf_counter() - started
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The micro-batch's share of the step's loss: already a mean over the global batch."""
        loss, scored = update_loss(self, model, inputs["micro_batch"])
        return (loss, {"scored": scored}) if return_outputs else loss

    def gather(self, items: list[Any]) -> list[Any]:
        """Every process's items, concatenated; the same list on each."""
        if self.args.world_size == 1:
            return items
        from accelerate.utils import gather_object

        return list(gather_object(items))

    # Logs, evaluation, checkpoints.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was measured since the last log, write metrics.jsonl, and pass on to the trackers."""
        regular = "loss" in logs
        if regular:
            logs = {**logs, **self.meter.pop(self.gather)}
            if "beta" in self.method.parameters:
                logs["beta"] = self.method.beta
        if "train_loss" in logs:
            # The Trainer divides the sum over the whole run by the steps of this call.
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)
        # From the history: callbacks may take entries out of the logs they are shown.
        self.directory.append("metrics", [{"step": self.state.global_step, **self.state.log_history[-1]}])
        if regular:
            self.events.after_log(logs)

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
                rows, self.processing_class, self.args, needs="prompts", where="eval_dataset", model=self.model
            )
        started = time.perf_counter()
        found = build_evaluator(self, self.args).run(rows, self.state.global_step)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that counts only once it is complete; the previous one stays until then."""
        save(self, partial(super()._save_checkpoint, model, trial))

    def _save_state_now(self) -> None:
        if self.saved_step != self.state.global_step:
            self._save_checkpoint(self.model, None)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights, configuration and tokenizer; no pickle of the arguments, which could hold a token of the hub."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            (Path(output_dir or str(self.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)

    def floating_point_ops(self, inputs: Any) -> int:
        """Arithmetic of one micro-batch's update: 6 x trainable-path parameters x tokens."""
        batch: MicroBatch = inputs["micro_batch"]
        tokens = sum(map(len, batch.prompt_ids)) + sum(map(len, batch.completion_ids))
        return 6 * tokens * self.parameter_count


def as_rows(batch: list[Row]) -> dict[str, list[Row]]:
    """The collator: rows stay records until their pairs are made."""
    return {"rows": batch}
