"""Random streams: the same name gives the same numbers, today and in every later version."""

from __future__ import annotations

import numpy as np
import pytest

from setsail.core import stream, uniforms

GOLDEN: dict[tuple[int | str, ...], list[float]] = {
    (0, "route", 7, 1): [0.733192434215398, 0.08587087279850059, 0.9811901856220255],
    (0, "sample", 0, 0): [0.0963812213602101, 0.5787836385550882, 0.12842416144743518],
    (42, "label", 123, 4): [0.1688329310256138, 0.2942098733394415, 0.8908305948183213],
    (1, "sample", "cafe"): [0.2875553374953893, 0.3831905718016938, 0.15779827610494945],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_numbers_never_change_silently(name: tuple[int | str, ...]) -> None:
    seed, purpose, *path = name
    assert stream(int(seed), str(purpose), *path).random(3).tolist() == GOLDEN[name]


def test_a_stream_depends_on_every_part_of_its_name() -> None:
    names = [(0, "route", 7, 1), (1, "route", 7, 1), (0, "label", 7, 1), (0, "route", 8, 1), (0, "route", 7, 2)]
    numbers = {name: float(stream(*name).random()) for name in names}  # type: ignore[arg-type]
    assert len(set(numbers.values())) == len(names)


def test_parts_do_not_run_into_each_other() -> None:
    assert stream(0, "route", 1, 23).random() != stream(0, "route", 12, 3).random()


def test_streams_do_not_depend_on_order_or_on_each_other() -> None:
    first = stream(0, "sample", 3).random(4)
    other = stream(0, "sample", 4)
    other.random(1000)
    np.random.default_rng(0).random(10)
    assert np.array_equal(stream(0, "sample", 3).random(4), first)


def test_a_longer_draw_starts_like_a_shorter_one() -> None:
    assert np.array_equal(stream(0, "sample", 3).random(9)[:4], stream(0, "sample", 3).random(4))


def test_no_global_generator_is_read_or_moved() -> None:
    np.random.seed(0)
    before = np.random.get_state()[2]
    stream(0, "route", 1).random(100)
    assert np.random.get_state()[2] == before


def test_uniforms_take_one_stream_a_key() -> None:
    together = uniforms(0, "sample", [(7, 0), (8, 0), ("nine", 1)], 5)
    assert together.shape == (3, 5)
    assert together.dtype == np.float64
    for row, key in zip(together, [(7, 0), (8, 0), ("nine", 1)], strict=True):
        assert np.array_equal(row, stream(0, "sample", *key).random(5))
    assert np.array_equal(uniforms(0, "sample", [(8, 0)], 5)[0], together[1])


def test_no_keys_give_an_empty_table() -> None:
    assert uniforms(0, "sample", [], 5).shape == (0, 5)


def test_numbers_are_uniform() -> None:
    draws = np.array([stream(0, "route", row, 0).random() for row in range(4000)])
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    chi_square = ((counts - 200) ** 2 / 200).sum()
    # 19 degrees of freedom: 50.8 is exceeded once in ten thousand.
    assert chi_square < 50.8
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4.5 / np.sqrt(4000)
