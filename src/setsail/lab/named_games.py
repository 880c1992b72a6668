"""Preference games whose equilibria are known, and random ones from named streams.

Legend: ``P[i, j]`` is the probability that response i is preferred to j, ``n`` responses, references as probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from setsail.core import stream
from setsail.lab.games import PreferenceGame


def rock_paper_scissors(beta: float = 0.1, reference: Sequence[float] = (0.6, 0.3, 0.1)) -> PreferenceGame:
    """``0`` beats ``1`` beats ``2`` beats ``0``, always: the Nash policy without a penalty is uniform.

    Args:
        beta: strength of the KL penalty, >= 0.
        reference: probabilities of the reference, shape ``(3,)``.

    >>> rock_paper_scissors().preference.tolist()
    [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
    """
    table = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
    return PreferenceGame(torch.tensor(table, dtype=torch.float64), _log(reference), beta)


def tilted_rock_paper_scissors(beta: float = 0.01) -> PreferenceGame:
    """Rock-paper-scissors with reference logits (0.5, 0, -0.5): at this small beta one-step methods keep circling."""
    game = rock_paper_scissors(beta)
    return PreferenceGame(game.preference, torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64), beta)


def uneven_cycle(beta: float = 0.0, reference: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)) -> PreferenceGame:
    """A cycle of win rates 0.9, 0.8 and 0.8, whose Nash policy without a penalty is (0.3, 0.3, 0.4).

    >>> uneven_cycle().win_rates(torch.tensor([0.3, 0.3, 0.4]).log()).mean().item()
    0.5
    """
    table = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]
    return PreferenceGame(torch.tensor(table, dtype=torch.float64), _log(reference), beta)


def random_game(seed: int = 0, responses: int = 10, beta: float = 0.1) -> PreferenceGame:
    """Win rates below the diagonal uniform in (0, 1), reference logits standard normal, from a named stream.

    Args:
        seed: names the stream.
        responses: n, at least 2.
        beta: strength of the KL penalty, >= 0; it does not change the draws.

    Raises:
        ValueError: fewer than two responses.

    Source: the simulated games of arXiv 2503.08942.
    """
    if responses < 2:
        raise ValueError(f"a game needs at least two responses, got {responses}")
    numbers = stream(seed, "lab", "random-game", responses)
    below = torch.from_numpy(numbers.random((responses, responses))).tril(-1)
    table = below + (1 - below.T).triu(1) + 0.5 * torch.eye(responses, dtype=torch.float64)
    return PreferenceGame(table, torch.from_numpy(numbers.normal(size=responses)), beta)


def ranking_game(
    rankings: Sequence[Sequence[int]],
    shares: Sequence[float],
    beta: float = 0.0,
    reference: Sequence[float] | None = None,
) -> PreferenceGame:
    """Annotators who each have a strict ranking; the win rate is the share of those who rank i above j.

    Three types with the rankings 0 1 2, 1 2 0 and 2 0 1 form a cycle although nobody's own preferences do. If each
    has less than half of the annotators, with shares ``w_0, w_1, w_2``, the Nash policy without a penalty is
    ``(1 - 2 w_2, 1 - 2 w_0, 1 - 2 w_1)``, which moves continuously with the shares.

    Args:
        rankings: each a permutation of the n responses, best first.
        shares: weight of each ranking; they sum to 1.
        beta: strength of the KL penalty, >= 0.
        reference: probabilities of the reference, shape ``(n,)``; None = uniform.

    Raises:
        ValueError: a ranking is no permutation, or the shares do not fit or do not sum to 1.

    >>> game = ranking_game([(0, 1, 2), (1, 2, 0), (2, 0, 1)], (0.25, 0.5, 0.25))
    >>> game.preference.tolist()
    [[0.5, 0.5, 0.25], [0.5, 0.5, 0.75], [0.75, 0.25, 0.5]]
    """
    if len(shares) != len(rankings) or abs(sum(shares) - 1) > 1e-9 or min(shares, default=0) < 0:
        raise ValueError(f"each ranking needs a share and shares sum to 1, got {len(rankings)} and {list(shares)}")
    n = len(rankings[0])
    table = torch.full((n, n), 0.0, dtype=torch.float64)
    for ranking, share in zip(rankings, shares, strict=True):
        if sorted(ranking) != list(range(n)):
            raise ValueError(f"a ranking lists each of the {n} responses once, got {list(ranking)}")
        place = torch.tensor([list(ranking).index(response) for response in range(n)])
        ahead = (place.unsqueeze(1) < place.unsqueeze(0)).double() + 0.5 * torch.eye(n, dtype=torch.float64)
        table += share * ahead
    return PreferenceGame(table, torch.zeros(n) if reference is None else _log(reference), beta)


def _log(probabilities: Sequence[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()
