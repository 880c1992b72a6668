"""Policies: a causal language model (or a small table) as something that gives token log-probs."""

from setsail.policies.distributions import completion_distributions
from setsail.policies.frozen import FrozenPolicies
from setsail.policies.loading import (
    add_adapter,
    base_of,
    disable_dropout,
    generation_config_of,
    is_peft,
    load_causal_lm,
    load_tokenizer,
    prepare_tokenizer,
)
from setsail.policies.lookahead import Lookahead
from setsail.policies.momentum import Extrapolation
from setsail.policies.products import ProductReference
from setsail.policies.references import DisabledAdapter, FrozenAdapter, FrozenCopy, Reference, hold_reference
from setsail.policies.scoring import ScoringBatch, collate, forward_arguments, pad_left, positions, token_logps
from setsail.policies.shared import (
    SharedBatch,
    can_share,
    collate_shared,
    completion_logps,
    score,
    shared_token_logps,
)
from setsail.policies.snapshots import Snapshot
from setsail.policies.soups import soup

__all__ = [
    "DisabledAdapter",
    "Extrapolation",
    "FrozenAdapter",
    "FrozenCopy",
    "FrozenPolicies",
    "Lookahead",
    "ProductReference",
    "Reference",
    "ScoringBatch",
    "SharedBatch",
    "Snapshot",
    "add_adapter",
    "base_of",
    "can_share",
    "collate",
    "collate_shared",
    "completion_distributions",
    "completion_logps",
    "disable_dropout",
    "forward_arguments",
    "generation_config_of",
    "hold_reference",
    "is_peft",
    "load_causal_lm",
    "load_tokenizer",
    "pad_left",
    "positions",
    "prepare_tokenizer",
    "score",
    "shared_token_logps",
    "soup",
    "token_logps",
]
