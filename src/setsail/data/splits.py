"""Holding out a part of a set, by prompt."""

from __future__ import annotations

from setsail.core import ConfigError, DataError, stream
from setsail.data.examples import Text, canonical
from setsail.data.preferences import PreferenceSet


def split_by_prompt(
    examples: PreferenceSet, held_out_fraction: float, seed: int
) -> tuple[PreferenceSet, PreferenceSet]:
    """``(train, held out)``: examples with the same prompt always lie on the same side.

    Prompts are compared as text, without the white space around them. Each distinct prompt has a number that
    depends on the seed and on its text alone, and the prompts with the smallest numbers are held out: the order
    of the rows and how often a prompt occurs play no part.

    Args:
        examples: the set to split.
        held_out_fraction: share of the distinct prompts to hold out, in [0, 1); rounded to a whole number of
            prompts, at least one unless it is 0.
        seed: which split.

    Raises:
        ConfigError: the fraction is not in [0, 1).
        DataError: too few distinct prompts for two sides.

    >>> from setsail.data import load_preferences
    >>> rows = [{"prompt": f"{i}+1?", "chosen": str(i + 1), "rejected": "0"} for i in range(10)]
    >>> train, held_out = split_by_prompt(load_preferences(rows), 0.2, seed=0)
    >>> len(train), len(held_out)
    (8, 2)
    """
    if not 0 <= held_out_fraction < 1:
        raise ConfigError(f"held_out_fraction={held_out_fraction!r} is a share of the prompts: it must lie in [0, 1).")
    keys = [_key(example.prompt) for example in examples]
    numbers = {key: float(stream(seed, "split", key).random()) for key in set(keys)}
    ranked = sorted(numbers, key=lambda key: (numbers[key], key))
    count = max(1, round(held_out_fraction * len(ranked))) if held_out_fraction else 0
    if count and count >= len(ranked):
        raise DataError(
            f"{examples.name}: {len(ranked)} distinct prompt{'s' * (len(ranked) != 1)} cannot be split so that "
            f"{held_out_fraction:.0%} are held out and some are left to train on. Give a held-out set of its own."
        )
    held = set(ranked[:count])
    sides = [[index for index, key in enumerate(keys) if (key in held) is wanted] for wanted in (False, True)]
    return examples.subset(sides[0], examples.name), examples.subset(sides[1], f"{examples.name}, held out")


def _key(prompt: Text) -> str:
    return canonical(prompt.strip() if isinstance(prompt, str) else prompt)
