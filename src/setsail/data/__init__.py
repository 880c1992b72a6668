"""Preference data: reading it from where it is, checking it, splitting it, and making token ids of it.

Pairs, lists of scored answers, single labeled answers, demonstrations and prompts: `needs=` says which.

    preferences = load_preferences("pairs.jsonl")
    train, held_out = split_by_prompt(preferences, 0.05, seed=0)
    rows = TokenizedPreferences(train, RowTokenizer(tokenizer, ...))

Everything that can be wrong with the data is found here, before a model loads. Nothing here imports torch; the
`datasets` library is imported only for sources that need it.
"""

from setsail.data.endings import eos_token_ids
from setsail.data.examples import Example, Text
from setsail.data.faults import FaultCount
from setsail.data.loading import check_preferences, load_preferences
from setsail.data.needs import NEEDS, Need
from setsail.data.preferences import PreferenceSet
from setsail.data.report import CheckReport, LabelCounts, Lengths, ListCounts
from setsail.data.splits import split_by_prompt
from setsail.data.tokenized import TokenizedPreferences
from setsail.data.tokenizing import RowTokenizer

__all__ = [
    "NEEDS",
    "CheckReport",
    "Example",
    "FaultCount",
    "LabelCounts",
    "Lengths",
    "ListCounts",
    "Need",
    "PreferenceSet",
    "RowTokenizer",
    "Text",
    "TokenizedPreferences",
    "check_preferences",
    "eos_token_ids",
    "load_preferences",
    "split_by_prompt",
]
