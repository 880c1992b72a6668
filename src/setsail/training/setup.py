"""From what a user gives (names, models, data) to what the trainer works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from setsail.core import ConfigError
from setsail.data import RowTokenizer, TokenizedPreferences, eos_token_ids, load_preferences
from setsail.methods import Method
from setsail.policies import (
    Extrapolation,
    FrozenPolicies,
    ProductReference,
    Reference,
    add_adapter,
    base_of,
    disable_dropout,
    generation_config_of,
    hold_reference,
    is_peft,
    load_causal_lm,
    load_tokenizer,
    prepare_tokenizer,
    soup,
)
from setsail.training.config import SailConfig

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class PolicySetup:
    """The policy and what is needed to hold its reference.

    Attributes:
        model: the model to train, adapter included.
        fresh_adapter: an adapter was just added, so the base model is the starting policy.
    """

    model: Any
    fresh_adapter: bool


def find_tokenizer(model: Any, given: Any) -> PreTrainedTokenizerBase:
    """The tokenizer to use: the one given, or the one beside the model."""
    if given is not None:
        if not hasattr(given, "eos_token_id"):
            raise ConfigError(
                f"processing_class must be a tokenizer, got {type(given).__name__}; pass an AutoTokenizer"
            )
        return prepare_tokenizer(given)
    source = model if isinstance(model, str) else getattr(getattr(model, "config", None), "_name_or_path", "")
    if not source:
        raise ConfigError("the model given does not say where its tokenizer is; pass processing_class=")
    return prepare_tokenizer(load_tokenizer(source, otherwise=base_of(source)))


def build_policy(model: Any, config: SailConfig, peft_config: PeftConfig | None) -> PolicySetup:
    """Load the model if it is a name, wrap it if an adapter is asked for."""
    if isinstance(model, str):
        kwargs = config.model_init_kwargs
        assert not isinstance(kwargs, str)
        model = load_causal_lm(model, kwargs)
    elif config.model_init_kwargs:
        raise ConfigError("model_init_kwargs is for a model given by name; this model is already loaded")
    if peft_config is not None:
        model = add_adapter(model, peft_config, seed=config.seed)
    if config.disable_dropout:
        disable_dropout(model)
    if is_peft(model) and config.gradient_checkpointing:
        model.enable_input_require_grads()
    _refuse_frozen(model)
    return PolicySetup(model, fresh_adapter=peft_config is not None)


def build_frozen(policy: PolicySetup, given: Any, method: Method, config: SailConfig) -> FrozenPolicies:
    """The reference of ``policy``, and the opponent where the method has one.

    Args:
        given: a reference of the user's own, by name or as a model.
    """
    if method.soup_share:
        given = _soup(policy, given, method, config)
    elif isinstance(given, str):
        given = build_policy(given, config, None).model
    fresh, rule = policy.fresh_adapter, method.reference
    opponent = None
    if method.opponent is not None:
        before = given if method.opponent.follows == "reference" else None
        if before is not None:
            # The reference of an earlier round: what it is one move behind is the policy itself.
            given = None
        if before is not None and is_peft(policy.model):
            raise ConfigError(
                f"method {method.name} compares the policy with the one of the round before, and with an adapter both "
                "are adapters; leave out ref_model (the first round then learns from offline pairs alone)"
            )
        opponent = hold_reference(
            policy.model, fresh_adapter=fresh, moves=method.opponent.moves, given=before, name="opponent"
        )
    reference: Reference
    if rule.anchor:
        # A reference of the user's own is where the anchor lies; what moves starts as the policy.
        start = hold_reference(policy.model, fresh_adapter=fresh, moves=False, given=given, name="anchor")
        moving = hold_reference(policy.model, fresh_adapter=fresh, moves=True)
        reference = ProductReference(start, moving, rule.anchor)
    else:
        reference = hold_reference(policy.model, fresh_adapter=fresh, moves=rule.moves, given=given)
    extrapolation = Extrapolation(policy.model, rule.momentum) if rule.momentum else None
    return FrozenPolicies(method, reference, opponent, extrapolation)


def _soup(policy: PolicySetup, given: Any, method: Method, config: SailConfig) -> Any:
    """The weighted average of the starting policy and a second fine-tuned model, as a model."""
    if given is not None:
        raise ConfigError(f"method {method.name} builds its reference itself; leave out ref_model")
    if config.soup_model is None:
        raise ConfigError(
            f"the reference of method {method.name} is the average of two models fine-tuned from one base: the one you "
            "train and a second one; name it with --soup_model DIR"
        )
    if is_peft(policy.model):
        raise ConfigError(
            f"method {method.name} averages whole models, but this policy is an adapter on a base model; train without "
            "one (no use_peft, no peft_config), an adapter of earlier training merged into its base first"
        )
    second = build_policy(config.soup_model, config, None).model
    try:
        average = soup([policy.model, second], [1 - method.soup_share, method.soup_share])
    except ConfigError as error:
        raise ConfigError(f"soup_model {config.soup_model!r} cannot be averaged with the policy: {error}") from error
    second.load_state_dict(average)
    return second


def _refuse_frozen(model: Any) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "no parameter of the model is trainable; load its adapter with is_trainable=True, or pass a peft_config"
        )


def build_data(
    train: Any, held_out: Any, tokenizer: PreTrainedTokenizerBase, config: SailConfig, method: Method, model: Any
) -> tuple[TokenizedPreferences | None, TokenizedPreferences | None]:
    """Training and held-out rows. Held-out prompts alone are enough to evaluate drawn answers on."""
    given = (("train_dataset", train, needed(method)), ("eval_dataset", held_out, "prompts"))
    rows = [
        None if data is None else build_rows(data, tokenizer, config, needs=needs, where=name, model=model)
        for name, data, needs in given
    ]
    return rows[0], rows[1]


def needed(method: Method) -> str:
    """What a row must hold for a method: what it learns from offline, one good answer, or prompts alone."""
    origins = {source.origin for route in method.active_routes for source in route.candidates}
    if method.offline:
        return method.form
    if "rejected" in origins:
        return "pairs"
    return "demonstrations" if "chosen" in origins else "prompts"


def build_rows(
    source: Any,
    tokenizer: PreTrainedTokenizerBase,
    config: SailConfig,
    *,
    needs: str,
    where: str,
    model: Any = None,
) -> TokenizedPreferences:
    """Read, check and tokenize a data set; ``needs`` as in :func:`setsail.data.load_preferences`."""
    if isinstance(source, TokenizedPreferences):
        return source
    preferences = load_preferences(source, needs=needs, where=where)
    kwargs = config.chat_template_kwargs
    assert not isinstance(kwargs, str)
    generation_config = generation_config_of(model)
    rows = RowTokenizer(
        tokenizer,
        max_prompt_length=config.max_prompt_length,
        max_completion_length=config.max_completion_length,
        eos_token_ids=eos_token_ids(tokenizer, generation_config),
        chat_template_kwargs=kwargs,
        long_prompts=config.long_prompts,  # type: ignore[arg-type]  # checked there, with a message
    )
    return TokenizedPreferences(preferences, rows)
