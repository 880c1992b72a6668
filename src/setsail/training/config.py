"""What a user can set. :class:`SailConfig` extends ``transformers.TrainingArguments``; each room gets only its part."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

from transformers import TrainingArguments

from setsail import methods
from setsail.core import ConfigError, Sampling
from setsail.methods import Method
from setsail.reference import ReferenceRule

ALARM_ACTIONS = ("warn", "stop")


@dataclass
class SailConfig(TrainingArguments):
    """Arguments of :class:`setsail.SailTrainer`: those of ``transformers.TrainingArguments`` and the ones below.

    Settings that a method has a vetted value for are ``None`` here: the method's own value is used, and a run that
    changes one says so. Per-route settings are dictionaries (``{"dpr": 0.2}``) or, on the command line, text
    (``dpr=0.2,ddp=0.1``).
    """

    _VALID_DICT_FIELDS = [  # noqa: RUF012  # the base class's own name and form
        *TrainingArguments._VALID_DICT_FIELDS,
        "model_init_kwargs",
        "chat_template_kwargs",
    ]

    # The method.
    method: str = field(default="sail-ddp", metadata={"help": "A name that `setsail methods` lists."})
    preset: str | None = field(
        default=None, metadata={"help": "Named settings of the method, e.g. 'published' for the paper's weights."}
    )
    beta: float | None = field(default=None, metadata={"help": "Strength of the KL penalty to the reference."})
    label_smoothing: float | None = field(
        default=None, metadata={"help": "Assumed share of flipped labels, in [0, 0.5) (dpo objective)."}
    )
    length_normalize: bool | None = field(
        default=None, metadata={"help": "Divide log-probs by answer length (ipo and likelihood objectives)."}
    )
    objective_parameters: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Other arguments of the objective, e.g. 'gamma=0.3' (see `setsail methods NAME`)."},
    )
    route_weights: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Probability that a row takes each route, e.g. 'dpr=0.3'."}
    )
    route_coefficients: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Coefficient of each route's loss, e.g. 'ddp=0.2'."}
    )
    route_corrections: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Coefficient of each route's online correction, e.g. 'dpr=0.1' (default 0)."}
    )
    addend_coefficients: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Coefficient of each added term, e.g. 'forward_kl=0.001'."}
    )
    labels: str | None = field(
        default=None, metadata={"help": "'averaged' over the preference (default) or 'sampled' from it."}
    )
    pairing: str | None = field(
        default=None,
        metadata={
            "help": "Which answers are compared: first-two, best-worst, all-pairs, tilted, clear-wins:0.8; where the "
            "objective reads values also best (alone) and all."
        },
    )
    robust_radius: float | None = field(
        default=None, metadata={"help": "Label error the loss is made robust to, in [0, 1]."}
    )
    staleness_limit: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps that may lie between drawing and learning; default: as the method says."},
    )
    sync_ref_model: bool | None = field(
        default=None, metadata={"help": "Whether the reference moves; default: as the method says."}
    )
    ref_model_sync_steps: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps between two moves of the reference, and of an opponent one move behind."},
    )
    ref_model_mixup_alpha: float | None = field(
        default=None, metadata={"help": "Share of the policy's weights the reference takes over when it moves."}
    )

    soup_model: str | None = field(
        default=None,
        metadata={"help": "Second fine-tuned model, for methods whose reference is an average of two (salsa)."},
    )

    # Answers.
    max_prompt_length: int = field(default=512, metadata={"help": "Longest prompt, in tokens."})
    max_completion_length: int = field(default=256, metadata={"help": "Longest answer, in tokens, drawn or given."})
    long_prompts: str = field(default="drop", metadata={"help": "Prompts over the limit: 'drop' or 'keep-end'."})
    num_generations: int | None = field(
        default=None,
        metadata={"help": "Answers a prompt of sources that leave the number open; default: as the method says."},
    )
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature; 1 draws from the policy itself."})
    top_k: int = field(default=0, metadata={"help": "Keep the k likeliest tokens; 0 keeps all."})
    top_p: float = field(default=1.0, metadata={"help": "Keep the smallest set of tokens with this mass."})
    min_p: float = field(default=0.0, metadata={"help": "Drop tokens below this share of the likeliest one's."})
    repetition_penalty: float = field(default=1.0, metadata={"help": "Penalty on tokens already present."})
    generation_batch_size: int = field(default=16, metadata={"help": "Prompts prefilled at once."})

    # Labels.
    hard_labels: bool = field(default=False, metadata={"help": "Turn scores into 0/1 labels instead of probabilities."})
    label_scale: float = field(default=1.0, metadata={"help": "Score gap that counts as one nat of preference."})
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weights of several labelers, in order.", "nargs": "+"}
    )
    max_missing_rate: float = field(default=0.5, metadata={"help": "Share of missing labels past which the run stops."})

    # Model and data.
    disable_dropout: bool = field(default=True, metadata={"help": "Train without dropout, so that log-probs agree."})
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Arguments of from_pretrained as JSON, e.g. \'{"dtype": "bfloat16"}\'.'}
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Extra arguments of the chat template, as JSON."}
    )

    share_prompts: bool = field(
        default=True, metadata={"help": "Compute a prompt once for both answers of a pair, where the model allows it."}
    )

    # Watching.
    eval_generations: int = field(default=64, metadata={"help": "Held-out prompts answered at each evaluation."})
    on_alarm: str = field(default="warn", metadata={"help": "What an alarm does: 'warn' or 'stop'."})
    log_completions: bool = field(default=False, metadata={"help": "Print a drawn pair at each log."})

    # Inherited, with a default that suits preference training.
    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate."})
    logging_steps: float = field(default=10, metadata={"help": "Optimizer steps between two logs."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Always False: rows are records."})

    def __post_init__(self) -> None:
        # Before the base class resolves and derives values: what the user said, to be written down; keys are not.
        self._given = {
            item.name: value
            for item in fields(self)
            if item.init and not item.name.endswith("_token") and (value := getattr(self, item.name)) != _default(item)
        }
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.remove_unused_columns = False
        for name in ("route_weights", "route_coefficients", "route_corrections", "addend_coefficients"):
            setattr(self, name, parse_numbers(name, getattr(self, name)))
        self.objective_parameters = parse_settings("objective_parameters", self.objective_parameters)
        self._check()
        self.resolved_method()

    def _check(self) -> None:
        if self.on_alarm not in ALARM_ACTIONS:
            raise ConfigError(f"on_alarm must be one of {', '.join(ALARM_ACTIONS)}, got {self.on_alarm!r}")
        for name in ("max_prompt_length", "max_completion_length", "generation_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}; 1 draws from the policy itself")
        if not 0 < self.max_missing_rate <= 1:
            raise ConfigError(f"max_missing_rate must lie in (0, 1], got {self.max_missing_rate}")

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn."""
        return Sampling(
            max_completion_length=self.max_completion_length,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )

    def resolved_method(self) -> Method:
        """The method with this config's settings; refuses combinations that make no sense."""
        method = methods.get(self.method)
        if self.preset is not None:
            method = method.preset(self.preset)
        given: Any = self.objective_parameters
        parameters = dict(given or {}) | {
            name: value
            for name in ("beta", "label_smoothing", "length_normalize")
            if (value := getattr(self, name)) is not None
        }
        resolved = method.configured(
            parameters=parameters,
            weights=self.route_weights,  # type: ignore[arg-type]  # parsed in __post_init__
            coefficients=self.route_coefficients,  # type: ignore[arg-type]
            corrections=self.route_corrections,  # type: ignore[arg-type]
            addends=self.addend_coefficients,  # type: ignore[arg-type]
            labels=self.labels,
            pairing=self.pairing,
            robust_radius=self.robust_radius,
            reference=self._reference_rule(method),
            staleness=self.staleness_limit,
            generations=self.num_generations,
        )
        check_generations(resolved, self.num_generations)
        check_soup(resolved, self.soup_model)
        corrected = [route.name for route in resolved.active_routes if route.correction]
        if resolved.is_policy_gradient and not self.sampling.is_policy:
            raise ConfigError(
                f"method {resolved.name} is a policy gradient, which needs answers drawn from the policy itself, but "
                f"the sampler reshapes it ({self._reshaped()}); use temperature 1 without truncation"
            )
        if corrected and not self.sampling.is_policy:
            raise ConfigError(
                f"the online correction of {', '.join(corrected)} needs answers drawn from the policy "
                "itself, but the sampler "
                f"reshapes it ({self._reshaped()}); use temperature 1 without truncation, or set the correction to 0"
            )
        return resolved

    def run_settings(self) -> dict[str, Any]:
        """The settings that were given and differ from the defaults, as plain data: enough to run this again."""
        return {
            "output_dir": self.output_dir,
            "method": self.method,
            **json.loads(json.dumps(self._given, default=str)),
        }

    def _reshaped(self) -> str:
        neutral = Sampling().as_dict()
        given = self.sampling.as_dict()
        return ", ".join(
            f"{name}={value:g}" for name, value in given.items() if value != neutral[name] and "length" not in name
        )

    def _reference_rule(self, method: Method) -> ReferenceRule | None:
        given = (self.sync_ref_model, self.ref_model_sync_steps, self.ref_model_mixup_alpha)
        if given == (None, None, None):
            return None
        if self.sync_ref_model is False:
            if given[1:] != (None, None):
                raise ConfigError(
                    "sync_ref_model=False keeps the reference fixed; leave out ref_model_sync_steps and "
                    "ref_model_mixup_alpha"
                )
            if method.opponent is not None and method.opponent.follows == "reference":
                raise ConfigError(
                    f"method {method.name} learns from what its reference took over at its last move, so its reference "
                    "must move; leave out sync_ref_model=False"
                )
            return ReferenceRule()
        steps = self.ref_model_sync_steps or method.reference.steps
        if steps is None:
            raise ConfigError("the reference is to move, but not how often; give ref_model_sync_steps as well")
        mixup = method.reference.mixup if self.ref_model_mixup_alpha is None else self.ref_model_mixup_alpha
        return replace(method.reference, steps=steps, mixup=mixup)


def check_generations(method: Method, given: int | None) -> None:
    """Refuse candidates that would be drawn for nothing, too few to compare, or a number that changes nothing.

    Raises:
        ConfigError: with what the method draws; ``given`` is the user's num_generations.
    """
    drawn = method.generations
    counts = [source.count for route in method.active_routes for source in route.candidates if source.is_drawn]
    if given is not None and counts and None not in counts:
        raise ConfigError(
            f"num_generations={given} changes nothing: method {method.name} says itself how many answers each of its "
            "sources draws; leave it out"
        )
    for route in (each for each in method.active_routes if each.draws):
        count, size = route.number_of_candidates(drawn), route.rule.size
        compared = count - 1 if route.values == "last" else count
        if compared < (size or 2):
            raise ConfigError(
                f"num_generations={drawn} leaves {compared} candidate(s) to compare on route {route.name} of "
                f"method {method.name}; it needs at least {size or 2}"
            )
        if route.pairing == "first-two" and compared > 2 and route.label != "win-rates":
            raise ConfigError(
                f"num_generations={drawn}, but pairing first-two of {route.name} compares only two of {compared} "
                "candidates; use pairing best-worst or all-pairs, or num_generations=2"
            )


def check_soup(method: Method, given: str | None) -> None:
    """Refuse a second model where nothing is averaged.

    Raises:
        ConfigError: the method's reference is no average.
    """
    if given is not None and not method.soup_share:
        raise ConfigError(
            "soup_model is for methods whose reference is an average of two models (salsa), and "
            f"{method.name} is none of them; leave it out"
        )


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def parse_numbers(name: str, given: Any) -> dict[str, float] | None:
    """``{"dpr": 0.3}`` from a mapping, from JSON, or from text of the form ``dpr=0.3,ddp=0.1``.

    >>> parse_numbers("route_weights", "dpr=0.3, ddp=0.1")
    {'dpr': 0.3, 'ddp': 0.1}
    """
    if given is None:
        return None
    try:
        if isinstance(given, str) and not given.lstrip().startswith("{"):
            given = dict(part.split("=", 1) for part in given.replace(";", ",").split(",") if part.strip())
        elif isinstance(given, str):
            given = json.loads(given)
        return {str(key).strip(): float(value) for key, value in given.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{name} must be a number per name, like 'dpr=0.3,ddp=0.1', got {given!r}") from error


def parse_settings(name: str, given: Any) -> dict[str, Any] | None:
    """``{"gamma": 0.3}`` from a mapping, from JSON, or from text of the form ``gamma=0.3,divergence=forward_kl``.

    >>> parse_settings("objective_parameters", "gamma=0.3, divergence=forward_kl, joint=true")
    {'gamma': 0.3, 'divergence': 'forward_kl', 'joint': True}
    """
    if given is None:
        return None
    try:
        if not isinstance(given, str):
            return dict(given)
        if given.lstrip().startswith("{"):
            return dict(json.loads(given))
        parts = dict(part.split("=", 1) for part in given.replace(";", ",").split(",") if part.strip())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name} must be a value per name, like 'gamma=0.3,joint=true', got {given!r}") from error
    return {key.strip(): _value(text.strip()) for key, text in parts.items()}


def _value(text: str) -> Any:
    """A number, true, false or null as JSON writes them; any other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
