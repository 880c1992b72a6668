"""``setsail train``: a YAML file and flags -> SailTrainer -> a run directory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich_argparse import RichHelpFormatter
from transformers import HfArgumentParser, PrinterCallback, TrainingArguments

from setsail.cli.parsing import parse_columns, read_config, refuse_unknown
from setsail.core import ConfigError
from setsail.training.config import SailConfig

if TYPE_CHECKING:
    from setsail.data import PreferenceSet
    from setsail.training.trainer import SailTrainer


@dataclass
class RunCommand:
    """What to train on what."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "Model: a directory or a hub id.",
            "aliases": ["--model_name_or_path", "--model-name-or-path"],
        },
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Preference set: a file, a directory or a hub id.",
            "aliases": ["--dataset_name", "--dataset-name"],
        },
    )
    dataset_split: str | None = field(default=None, metadata={"help": "Which split of it (default: train)."})
    columns: str | None = field(default=None, metadata={"help": "Column names, e.g. prompt=question,chosen=good."})
    pairs: str = field(default="best-worst", metadata={"help": "Pairs of several scored answers: best-worst or all."})
    limit: int | None = field(default=None, metadata={"help": "Read at most this many rows."})
    eval_dataset: str | None = field(default=None, metadata={"help": "Held-out preference set."})
    held_out_fraction: float = field(
        default=0.0, metadata={"help": "Share of the prompts to hold out for evaluation, if no eval_dataset is given."}
    )
    labeler: list[str] | None = field(
        default=None,
        metadata={
            "help": "Reward model (directory or id), function (file.py:name), or self (the policy judges its own "
            "answers); of several the scores are added, with self among them the preferences averaged.",
            "nargs": "+",
        },
    )
    ref_model: str | None = field(default=None, metadata={"help": "Reference (default: the starting policy)."})
    tokenizer: str | None = field(default=None, metadata={"help": "Tokenizer (default: the one beside the model)."})
    dtype: str | None = field(default=None, metadata={"help": "Weights: float32 (default), bfloat16, float16."})
    use_peft: bool = field(default=False, metadata={"help": "Train a LoRA adapter instead of the full weights."})
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapter."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of the adapter (needs disable_dropout false)."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Layers that get an adapter (default: all linear ones).", "nargs": "+"}
    )


def _parser(*, everything: bool) -> HfArgumentParser:
    parser = HfArgumentParser(
        (RunCommand, SailConfig),  # type: ignore[arg-type]  # dataclass types
        prog="setsail train",
        usage="setsail train --model MODEL --dataset DATASET [--method METHOD] [--config FILE] [options]",
        description="Align a causal language model with preferences. Flags win over the config file.",
        epilog="Every option of transformers.TrainingArguments works too: --help-all lists them.",
        formatter_class=RichHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--config", help="YAML file of these options.")
    parser.add_argument("--help-all", action="help", help="Show the options of TrainingArguments as well.")
    if not everything:
        ours = {item.name for item in (*fields(RunCommand), *fields(SailConfig))} - {
            item.name for item in fields(TrainingArguments)
        }
        kept = ours | {"output_dir", "max_steps", "num_train_epochs", "per_device_train_batch_size", "config", "help"}
        kept |= {
            "gradient_accumulation_steps",
            "learning_rate",
            "save_steps",
            "eval_steps",
            "report_to",
            "seed",
            "help_all",
        }
        kept |= {"resume_from_checkpoint", "logging_steps", "bf16", "eval_strategy"}
        for action in parser._actions:
            if action.dest not in kept:
                action.help = argparse.SUPPRESS
    parser.error = _refuse  # type: ignore[method-assign,assignment]  # a readable line instead of usage and status 2
    return parser


def _refuse(message: str) -> None:
    raise ConfigError(f"{message} (`setsail train --help` lists the options)")


def read_arguments(arguments: Sequence[str]) -> tuple[RunCommand, SailConfig, Path | None]:
    """Flags and config file as the two dataclasses, and the config file's folder.

    Raises:
        ConfigError: an unknown flag or key (the nearest is named), or a value that cannot be used.
    """
    parser = _parser(everything="--help-all" in arguments)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    path = early.parse_known_args(list(arguments))[0].config
    if path:
        known = {action.dest for action in parser._actions} - {"help", "help_all", "config"}
        parser.set_defaults(**read_config(path, known))
    try:
        command, config, _, unknown = parser.parse_args_into_dataclasses(
            list(arguments), return_remaining_strings=True, look_for_args_file=False
        )
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error} (`setsail train --help` lists the options)") from error
    refuse_unknown(parser, unknown)
    return command, config, Path(path).parent if path else None


def run(arguments: Sequence[str]) -> int:
    """Train, evaluate if there is something to evaluate on, and save the model."""
    from setsail.cli.terminal import quiet_libraries, show_result, show_start

    if not arguments:
        raise ConfigError("nothing to train; try `setsail train --model DIR --dataset FILE`, or `setsail train --help`")
    quiet_libraries()
    command, config, base = read_arguments(arguments)
    trainer = build_trainer(command, config, base)
    trainer.remove_callback(PrinterCallback)
    show_start(trainer, command.model or "", command.dataset or "")
    trainer.train(resume_from_checkpoint=_resume(config.resume_from_checkpoint))
    metrics = trainer.evaluate() if trainer.eval_dataset is not None else {}
    trainer.save_model()
    show_result(trainer, metrics)
    return 0


def _resume(given: Any) -> str | bool | None:
    if given is None or str(given).lower() in ("false", "no", ""):
        return None
    return True if str(given).lower() in ("true", "yes", "auto") else str(given)


def build_trainer(command: RunCommand, config: SailConfig, base: Path | None = None) -> SailTrainer:
    """The trainer that the options describe; data are read and checked before a model is loaded.

    ``base`` is the config file's folder: a labeler's file that is not found from here is looked for there.
    """
    from setsail.cli.terminal import Progress
    from setsail.data import load_preferences
    from setsail.training.setup import needed
    from setsail.training.trainer import SailTrainer

    for name in ("model", "dataset"):
        if getattr(command, name) is None:
            raise ConfigError(f"no {name} is given; pass --{name} (a path or a hub id)")
    command.labeler = [_located(name, base) for name in _names(command.labeler)] or None
    config.disable_tqdm = True
    method = config.resolved_method()
    options: dict[str, Any] = {
        "columns": parse_columns(command.columns),
        "pairs": command.pairs,
        "limit": command.limit,
    }
    train = load_preferences(str(command.dataset), split=command.dataset_split, needs=needed(method), **options)
    held_out: PreferenceSet | None = None
    if command.eval_dataset is not None:
        held_out = load_preferences(command.eval_dataset, where="eval_dataset", needs="prompts", **options)
    elif command.held_out_fraction:
        train, held_out = _split(train, command.held_out_fraction, config.seed)
    if command.dtype is not None:
        config.model_init_kwargs = {**(config.model_init_kwargs or {}), "dtype": command.dtype}  # type: ignore[dict-item]
    trainer = SailTrainer(
        str(command.model),
        ref_model=command.ref_model,
        args=config,
        train_dataset=train,
        eval_dataset=held_out,
        labeler=_labeler(command.labeler),
        processing_class=_tokenizer(command.tokenizer),
        peft_config=_adapter(command),
        callbacks=[Progress()],
    )
    neutral = asdict(RunCommand())
    trainer.command_settings = {name: value for name, value in asdict(command).items() if value != neutral[name]}
    return trainer


def _split(train: PreferenceSet, fraction: float, seed: int) -> tuple[PreferenceSet, PreferenceSet]:
    from setsail.data import split_by_prompt

    return split_by_prompt(train, fraction, seed)


def _labeler(names: list[str] | None) -> Any:
    if not names:
        return None
    return names[0] if len(names) == 1 else names


def _names(given: Any) -> list[str]:
    """A config file may give one name without a list."""
    return [given] if isinstance(given, str) else list(given or ())


def _located(name: str, base: Path | None) -> str:
    file = name.split(":", 1)[0]
    if base is not None and not Path(file).exists() and (base / file).exists():
        return str(base.resolve() / name)
    return name


def _tokenizer(source: str | None) -> Any:
    if source is None:
        return None
    from setsail.policies import load_tokenizer

    return load_tokenizer(source)


def _adapter(command: RunCommand) -> Any:
    if not command.use_peft:
        return None
    if (Path(str(command.model)) / "adapter_config.json").is_file():
        raise ConfigError(f"{command.model!r} already holds an adapter, which is trained as it is; leave out use_peft")
    from peft import LoraConfig

    return LoraConfig(
        r=command.lora_r,
        lora_alpha=command.lora_alpha,
        lora_dropout=command.lora_dropout,
        target_modules=command.lora_target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )
