"""The labeler of a run: the one given, or the policy under training itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from setsail.core import ConfigError, Labeler
from setsail.labelers import MissingGuard, SelfJudge, resolve
from setsail.labelers.self_judge import NextLogProbs
from setsail.methods import Method
from setsail.training.config import SailConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("setsail")

SELF = "self"
"""The labeler's name that stands for the policy under training."""


def build_labeler(
    given: Any, method: Method, config: SailConfig, tokenizer: PreTrainedTokenizerBase, policy: NextLogProbs
) -> Labeler | None:
    """The guarded labeler, or None where the method needs none.

    Args:
        given: what the user gave; ``"self"``, alone or in a list, is the policy under training.
        method: says whether one is needed, and who judges where the user names nobody.
        config: how scores become labels.
        tokenizer, policy: the policy's, to let it judge; ``policy`` is first called when something is labeled.

    Raises:
        ConfigError: the method needs one and none was given.
    """
    if method.needs_labeler:
        given = method.judge if given is None else given
        if given is None:
            raise ConfigError(_missing(method))
    elif given is not None:
        logger.warning("method %s uses no labeler; the one given is only used at evaluation", method.name)
    elif config.hard_labels:
        raise ConfigError(f"hard_labels=True, but method {method.name} uses no labeler; leave it out")
    if given is None:
        return None
    labeler = _resolved(given, config, tokenizer, policy)
    return MissingGuard(labeler, max_missing_rate=config.max_missing_rate)


def _resolved(given: Any, config: SailConfig, tokenizer: PreTrainedTokenizerBase, policy: NextLogProbs) -> Labeler:
    parts = list(given) if isinstance(given, list | tuple) else [given]
    options: dict[str, Any] = {"hard": config.hard_labels, "scale": config.label_scale}
    if any(isinstance(part, str) and part == SELF for part in parts):
        kwargs = config.chat_template_kwargs
        assert not isinstance(kwargs, str)
        alone = len(parts) == 1
        # Beside others it stays soft: what several say is averaged first and decided afterwards.
        judge = SelfJudge(
            policy, tokenizer, template=kwargs, hard=alone and config.hard_labels, scale=config.label_scale
        )
        given = [judge if isinstance(part, str) and part == SELF else part for part in parts]
        options = {} if alone else options
    return resolve(given, weights=config.reward_weights, **options)


def _missing(method: Method) -> str:
    routes = ", ".join(route.name for route in method.active_routes if route.preference == "labeler")
    return (
        f"method {method.name} needs a labeler for its route {routes!r}, but none was given; pass labeler= (a reward "
        "model, a callable 'file.py:function', or 'self' for the policy's own judgement), or use sail-ddp or sail-dpp, "
        "which need none"
    )
