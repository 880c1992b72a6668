"""How varied texts are: bounds, numbers by hand, and what must not change them."""

from __future__ import annotations

import math

import pytest

from setsail.core import ConfigError, DataError, stream
from setsail.evaluation import distinct, self_bleu


def _texts(count: int, words: int, vocabulary: int) -> list[str]:
    generator = stream(0, "texts", count, words, vocabulary)
    return [" ".join(f"w{word}" for word in generator.integers(vocabulary, size=words)) for _ in range(count)]


def test_distinct_by_hand() -> None:
    texts = [["a", "b", "a"], ["b", "a"]]
    assert distinct(texts, 1) == 2 / 5
    assert distinct(texts, 2) == 2 / 3
    assert distinct(texts, 3) == 1.0
    assert distinct(texts, 4) == 0.0
    assert distinct([], 1) == 0.0


def test_distinct_falls_with_the_amount_of_text() -> None:
    few, many = (distinct([text.split() for text in _texts(count, 20, 50)], 1) for count in (5, 100))
    assert many < few / 5


def test_twins_are_1_and_strangers_0() -> None:
    assert self_bleu(["the cat sat on the mat"] * 3) == 1.0
    assert self_bleu(["a b c d e", "a b c d e", "v w x y z", "v w x y z"]) == 1.0
    assert self_bleu(["a b c d", "e f g h", "i j k l"]) == 0.0
    assert self_bleu(["", ""]) == 1.0
    assert self_bleu(["", "a"]) == 0.0


def test_self_bleu_by_hand() -> None:
    """Of "a b c" by "a b d": 2/3 of words, 1/2 of pairs. Of two words by three: all, with a brevity of exp(-1/2)."""
    assert self_bleu(["a b c", "a b d"], n=2) == pytest.approx(math.sqrt(2 / 3 * 1 / 2))
    long, short = math.sqrt(2 / 3 * 1 / 2), math.exp(1 - 3 / 2)
    assert self_bleu(["a b c", "a b"], n=2) == pytest.approx((long + short) / 2)


def test_a_repeated_word_counts_as_often_as_another_text_has_it() -> None:
    """ "a a a a" by "a a b b": two of four; by "a b" and "b a" still one of four, not the sum over texts."""
    assert self_bleu(["a a a a", "a a b b"], n=1) == pytest.approx(0.5)
    third = self_bleu(["a a a a", "a b c d", "d c b a"], n=1)
    assert third == pytest.approx((1 / 4 + 1 + 1) / 3)


def test_it_lies_between_0_and_1_and_grows_with_repetition() -> None:
    found = [self_bleu(_texts(12, 15, vocabulary), n=2) for vocabulary in (2, 8, 40, 4000)]
    assert all(0 <= value <= 1 for value in found)
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.9
    assert found[-1] < 0.1


def test_the_order_of_texts_does_not_matter() -> None:
    texts = _texts(6, 9, 5)
    assert self_bleu(texts[::-1]) == pytest.approx(self_bleu(texts))


def test_one_text_does_not_repeat_itself() -> None:
    with pytest.raises(DataError, match="1 texts: how much texts repeat each other takes at least two"):
        self_bleu(["a"])
    with pytest.raises(ConfigError, match="n=0"):
        self_bleu(["a", "b"], n=0)
