"""The KL gradient of answers of several tokens, exact and token-local, and the two ways to mix policies.

Answers of exactly T tokens over three symbols; EOS exists and is never drawn. The *token-local* gradient multiplies
each token's score by that token's own log-ratio only; it is the gradient of the KL with the distribution of prefixes
held fixed, ``sum over prefixes of sg[pi(prefix)] KL(pi(. | prefix) || ref(. | prefix))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import quantiles

import torch
from torch import Tensor
from torch.nn import functional

from setsail import lab
from setsail.core import stream
from setsail.lab.studies.game_runs import claim
from setsail.lab.studies.records import Cell, Claim, Curve, Panel, Table
from setsail.methods import get
from setsail.objectives import reverse_kl_full
from setsail.policies.tabular import TabularTokenPolicy
from setsail.policies.tabular_sampling import mixture

SYMBOLS = 3
NEVER = -1000.0
"""EOS's logit: a probability of 0 in float64, with a finite log."""

# Standard normal logits of the first token and, below, of the second after each first.
POLICY = ((1.5410, -0.2934, -2.1788), (0.5684, -1.0845, -1.3986), (0.4033, 0.8380, -0.7193), (-0.4033, -0.5966, 0.1820))
REFERENCE = (
    (-0.8567, 1.1006, -1.0712),
    (0.1227, -0.5663, 0.3731),
    (-0.8920, -1.5091, 0.3704),
    (1.4565, 0.9398, 0.7748),
)
LENGTHS, WORLDS = (2, 3, 4), 40


def two_tokens(table: Sequence[Sequence[float]]) -> TabularTokenPolicy:
    """A policy whose answers are two symbols; ``table`` holds logits, shape ``(prefixes, symbols)``."""
    return _policy(torch.tensor(table, dtype=torch.float64), 2)


def _policy(table: Tensor, length: int) -> TabularTokenPolicy:
    return TabularTokenPolicy(functional.pad(table, (1, 0), value=NEVER)[None], length)


def answers(policy: TabularTokenPolicy) -> list[int]:
    """Places of the answers that can be drawn, those without EOS."""
    return [place for place, sequence in enumerate(policy.sequences()) if policy.eos not in sequence]


def kl_gradients(policy: TabularTokenPolicy, reference: TabularTokenPolicy) -> tuple[Tensor, Tensor]:
    """The gradient of ``KL(pi || ref)`` of whole answers, and its token-local form; flat, shape ``(parameters,)``."""
    exact = lab.reverse_kl(policy, reference)
    visited = dict.fromkeys(policy.prefixes(), 0.0)
    for sequence, chance in zip(policy.sequences(), policy.log_probs()[0].exp().tolist(), strict=True):
        for length in range(len(sequence)):
            visited[sequence[:length]] += chance
    each = reverse_kl_full(policy.next_token_log_probs()[0], reference.next_token_log_probs()[0].detach())
    local = (torch.tensor(list(visited.values()), dtype=torch.float64) * each).sum()
    return lab.gradient(exact, policy), lab.gradient(local, policy)


def compared(policy: TabularTokenPolicy, reference: TabularTokenPolicy) -> tuple[float, float]:
    """Relative error of the token-local gradient, and its cosine with the exact one."""
    exact, local = kl_gradients(policy, reference)
    error = (local - exact).norm() / exact.norm()
    return error.item(), functional.cosine_similarity(local, exact, dim=0).item()


@cache
def random_worlds(length: int) -> tuple[tuple[float, float], ...]:
    """:func:`compared` for pairs of policies with standard normal logits and answers of so many tokens."""
    prefixes = sum(SYMBOLS**place for place in range(length))
    found = []
    for seed in range(WORLDS):
        numbers = stream(seed, "study", "nash-md", length)
        tables = torch.from_numpy(numbers.normal(size=(2, prefixes, SYMBOLS)))
        found.append(compared(_policy(tables[0], length), _policy(tables[1], length)))
    return tuple(found)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10th, 50th and 90th of a hundred."""
    tenths = quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[4], tenths[8]


def mixing_distance(share: float) -> float:
    """Total variation between mixing two-token policies token by token and mixing whole answers."""
    policy, reference = two_tokens(POLICY), two_tokens(REFERENCE)
    by_token = mixture(policy, reference, share).log_probs()[0].exp()
    by_answer = ((1 - share) * policy.log_probs()[0] + share * reference.log_probs()[0]).softmax(-1)
    return (by_token - by_answer).abs().sum().item() / 2


@dataclass(frozen=True, slots=True)
class Rest:
    """Where self-play policy gradient ends in the two-token world: distance from the equilibrium, and the gap there."""

    kl: float
    gap: float
    equilibrium_kl: float


@cache
def rest(beta: float, local: bool) -> Rest:
    """Train from the reference against the policy itself, with the exact or the token-local KL gradient."""
    reference, policy = two_tokens(REFERENCE), two_tokens(REFERENCE)
    drawn = answers(policy)
    table = lab.random_game(0, len(drawn), beta).preference
    game = lab.PreferenceGame(table, reference.log_probs()[0, drawn], beta)

    def direction() -> Tensor:
        now = policy.log_probs()[0, drawn]
        won = (now.exp() * game.win_rates(now.detach())).sum()
        return beta * kl_gradients(policy, reference)[local] - lab.gradient(won, policy)

    lab.train_exact(policy, direction, rate=4.0, steps=500, tolerance=1e-8)
    last, target = policy.log_probs()[0, drawn].detach(), lab.equilibrium(game)
    away = lab.exact_kl(target, game.reference).item()
    return Rest(lab.exact_kl(target, last).item(), game.duality_gap(last).item(), away)


def method_error() -> float:
    """Relative error of the catalogue's Nash-MD gradient against the gradient of the payoff, in the two-token world."""
    policy, reference = two_tokens(POLICY), two_tokens(REFERENCE)
    drawn, beta, share = answers(policy), 0.1, 0.125
    game = lab.PreferenceGame(lab.random_game(0, len(drawn), beta).preference, reference.log_probs()[0, drawn], beta)
    table = torch.full([len(policy.sequences())] * 2, 0.5, dtype=torch.float64)
    table[torch.tensor(drawn)[:, None], torch.tensor(drawn)] = game.preference
    tie = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.tensor([0.5], dtype=torch.float64))
    world = lab.TabularWorld(reference.frozen(), tie, table[None])
    method = get("nash-md").configured(parameters={"beta": beta})
    found = lab.mixture_gradient(method, policy, world)
    opponent = mixture(policy, reference, share).log_probs()[0, drawn]
    wanted = -lab.gradient(game.payoff(policy.log_probs()[0, drawn], opponent), policy)
    error: Tensor = (found - wanted).norm() / wanted.norm()
    return error.item()


def gradients_table() -> Table:
    """The token-local gradient against the exact one."""
    error, cosine = compared(two_tokens(POLICY), two_tokens(REFERENCE))
    rows: list[tuple[Cell, ...]] = [("two tokens, fixed logits", 1, None, error, None, cosine, None)]
    for length in LENGTHS:
        errors, cosines = zip(*random_worlds(length), strict=True)
        rows.append((f"{length} tokens, random", len(errors), *spread(errors), spread(cosines)[1], min(cosines)))
    return Table(
        name="token-gradients",
        title="Token-local KL gradient against the exact one, answers over three symbols",
        columns={
            "worlds": "",
            "number": "d",
            "error, 10th percentile": ".2f",
            "median error": ".3f",
            "90th percentile": ".2f",
            "median cosine": ".3f",
            "smallest cosine": ".2f",
        },
        rows=rows,
    )


def rests_table() -> Table:
    """Where training on either ends."""
    rows = [
        (beta, "token-local" if local else "exact", found.kl, found.gap, found.equilibrium_kl)
        for beta in (0.5, 0.2)
        for local in (False, True)
        for found in [rest(beta, local)]
    ]
    return Table(
        name="token-rests",
        title="Where self-play policy gradient ends in the two-token world, 500 steps",
        columns={
            "beta": "g",
            "KL gradient": "",
            "KL(pi* || pi), nats": ".1e",
            "duality gap": ".1e",
            "KL(pi* || ref), nats": ".1e",
        },
        rows=rows,
    )


def claims() -> list[Claim]:
    """What is claimed of the two-token world."""
    error, cosine = compared(two_tokens(POLICY), two_tokens(REFERENCE))
    return [
        claim(
            "nash-md's gradient against that of the payoff, two tokens: relative error",
            method_error(),
            "<=",
            1e-12,
        ),
        claim("two tokens: relative error of the token-local KL gradient", error, "=", 0.12, 0.005),
        claim("two tokens: its cosine with the exact gradient", cosine, "=", 0.998, 6e-4),
        claim(
            "two tokens: total variation between mixing tokens and mixing answers, weight 0.375",
            mixing_distance(0.375),
            "=",
            0.031,
            5e-4,
        ),
    ]


def errors_panel() -> Panel:
    """How large the error is on random policies."""
    curves = []
    for place, length in enumerate(LENGTHS):
        errors = sorted(error for error, _ in random_worlds(length))
        shares = [(index + 0.5) / len(errors) for index in range(len(errors))]
        curves.append(Curve(label=f"{length} tokens", x=errors, y=shares, color=place))
    return Panel(
        title="Token-local KL gradient",
        x_label="relative error",
        y_label="share of random worlds below",
        x_range=(0.0, 1.5),
        y_range=(0.0, 1.0),
        curves=curves,
    )
