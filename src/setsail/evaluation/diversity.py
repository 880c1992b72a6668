"""How varied a set of texts is. Words are what white space separates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from setsail.core import ConfigError, DataError

Words = Sequence[str]


def distinct(texts: Sequence[Words], n: int) -> float:
    """Number of different n-grams over the number of n-grams, over all texts; 0 where there are none.

    It falls with the amount of text: compare sets of equal size.

    Source: arXiv 1510.03055, section 5.

    >>> distinct([["a", "b", "a", "b"]], 2)
    0.6666666666666666
    """
    grams = [gram for words in texts for gram in _grams(words, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """How much each text repeats the others: the mean BLEU of a text with all others as its references, in [0, 1].

        BLEU_i = min(1, exp(1 - r_i / c_i)) * (prod over k = 1..K of precision_k)^(1/K)

    with c_i the number of words of text i, r_i that of the other text nearest in length (the shorter of two),
    precision_k the share of text i's k-grams found in another text (each as often as it occurs there, in the text that
    has it most often), and K = min(n, c_i). It is 1 where every text has a twin, 0 where no two texts share a word;
    without smoothing it is 0 too for a text that shares no K-gram. Compare sets of equal size: more texts, more echoes.

    Args:
        texts: the answers to one prompt, at least two. Average over prompts.
        n: longest n-gram.

    Raises:
        DataError: fewer than two texts.
        ConfigError: n < 1.

    Source: arXiv 1802.01886, section 3; BLEU without smoothing.

    >>> self_bleu(["a b c d", "a b c d"]), self_bleu(["a b", "c d"]), round(self_bleu(["a b", "a c"], n=1), 3)
    (1.0, 0.0, 0.5)
    """
    if n < 1:
        raise ConfigError(f"n={n}: n-grams have at least one word")
    if len(texts) < 2:
        raise DataError(f"{len(texts)} texts: how much texts repeat each other takes at least two")
    split = [text.split() for text in texts]
    return sum(_bleu(words, split[:i] + split[i + 1 :], n) for i, words in enumerate(split)) / len(split)


def _bleu(words: Words, others: Sequence[Words], n: int) -> float:
    if not words:
        return float(any(not other for other in others))
    orders = min(n, len(words))
    logs = 0.0
    for order in range(1, orders + 1):
        mine = Counter(_grams(words, order))
        most: Counter[tuple[str, ...]] = Counter()
        for other in others:
            most |= Counter(_grams(other, order))
        found = (mine & most).total()
        if not found:
            return 0.0
        logs += math.log(found / mine.total())
    nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    return min(1.0, math.exp(1 - nearest / len(words))) * math.exp(logs / orders)


def _grams(words: Words, n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
