"""Named random streams.

Every random choice of a run comes from a stream that is named by what it decides: the run's seed, a
purpose ("route", "sample", "label", ...), and the row and epoch it is for. No global generator is seeded
or read. So which route a row takes and which tokens are drawn for it do not depend on the batch size, on
the number of workers or processes, or on whether the run was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stream(seed: int, purpose: str, *path: int | str) -> np.random.Generator:
    """The generator named by ``(seed, purpose, *path)``; the same name always gives the same numbers.

    >>> float(stream(0, "route", 7, 1).random()) == float(stream(0, "route", 7, 1).random())
    True
    >>> float(stream(0, "route", 7, 1).random()) == float(stream(0, "route", 7, 2).random())
    False
    """
    name = "\x1f".join([str(int(seed)), purpose, *map(str, path)])
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))


def uniforms(seed: int, purpose: str, keys: Sequence[tuple[int | str, ...]], count: int) -> NDArray[np.float64]:
    """``count`` uniforms in [0, 1) for each of the ``keys``, one independent stream a key.

    Returns:
        float64 array of shape ``(len(keys), count)``; row i depends on ``keys[i]`` alone.

    >>> uniforms(0, "sample", [(7, 0), (8, 0)], 3).shape
    (2, 3)
    """
    rows = [stream(seed, purpose, *key).random(count) for key in keys]
    return np.stack(rows) if rows else np.empty((0, count))
