"""A judge that adds ``BIAS`` to the log-odds of the answer it reads first: asked in one order, in both, averaged how.

One prompt, six answers of reward 0 to 2.5, Bradley-Terry preferences, beta 1.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies.game_runs import claim, told
from setsail.lab.studies.records import Cell, Claim, Curve, Panel, Table
from setsail.methods import get
from setsail.policies.tabular import TabularPolicy

BIAS, GAPS = 0.6, (-0.4, -0.1, 0.1, 0.4)
ONE, BOTH, ODDS = "one order", "both orders, averaged", "both orders, log-odds averaged"
ONE_VERDICT, BOTH_VERDICT = "one order, verdict", "both orders, verdicts averaged"
JUDGES = (ONE, BOTH, ODDS, ONE_VERDICT, BOTH_VERDICT)


def judged(gap: Tensor, judge: str) -> Tensor:
    """What a judge says of the first answer where it is better by ``gap`` on the log-odds; any shape."""
    if judge == ODDS:
        return torch.sigmoid(((gap + BIAS) - (-gap + BIAS)) / 2)

    def one(gap: Tensor) -> Tensor:
        odds = gap + BIAS
        return (1 + odds.sign()) / 2 if "verdict" in judge else torch.sigmoid(odds)

    return (one(gap) + 1 - one(-gap)) / 2 if judge in (BOTH, BOTH_VERDICT) else one(gap)


def orders_table() -> Table:
    """What the judges say of four true gaps."""
    gaps = torch.tensor(GAPS, dtype=torch.float64)
    rows: list[tuple[Cell, ...]] = [("unbiased", *torch.sigmoid(gaps).tolist())]
    rows += [(judge, *judged(gaps, judge).tolist()) for judge in JUDGES]
    return Table(
        name="orders",
        title="P(first preferred) of a judge that adds 0.6 to the log-odds of what it reads first, by true gap",
        columns={"judge": "", **{f"{gap:+.1f}": ".3f" for gap in GAPS}},
        rows=rows,
    )


EXCHANGEABLE, ROLES = "online-dpo", "xpo"
METHODS = {EXCHANGEABLE: "two answers of the policy", ROLES: "policy first, reference second"}
BIASED_STEPS = 200


@cache
def biased_end(name: str, judge: str) -> tuple[float, float, float]:
    """Mean reward, KL and distance from RLHF's optimum after training under a judge, beta 1."""
    policy, world, reward = lab.six_responses()
    gap = reward[0].unsqueeze(-1) - reward[0]
    table = torch.sigmoid(gap) if judge == "unbiased" else judged(gap, judge)
    method = get(name).configured(parameters={"beta": 1.0}, addends={"optimism": 0.0} if name == ROLES else None)
    biased = replace(world, preference=table[None])
    lab.train_exact(
        policy, lambda: lab.mixture_gradient(method, policy, biased), rate=4.0, steps=BIASED_STEPS, tolerance=1e-9
    )
    best = lab.optimal_policy(world.reference, reward, 1.0).log_probs()[0].detach()
    last = policy.log_probs()[0].detach()
    kl = lab.reverse_kl(policy, world.reference).item()
    return lab.expected_reward(policy, reward).item(), kl, lab.exact_kl(best, last).item()


def order_difference() -> float:
    """Gradient of online DPO under one order against both, at a policy off the reference: largest difference."""
    _, world, reward = lab.six_responses()
    gap = reward[0].unsqueeze(-1) - reward[0]
    at = TabularPolicy(torch.linspace(-1, 0.5, 6, dtype=torch.float64)[None])
    method = get(EXCHANGEABLE).configured(parameters={"beta": 1.0})
    one, both = (
        lab.mixture_gradient(method, at, replace(world, preference=judged(gap, judge)[None])) for judge in (ONE, BOTH)
    )
    return (one - both).abs().max().item()


def ends_table() -> Table:
    """Where training under each of them ends."""
    rows: list[tuple[Cell, ...]] = []
    for name, drawn in METHODS.items():
        for judge in ("unbiased", *JUDGES):
            reward, kl, off = biased_end(name, judge)
            rows.append((name, drawn, judge, reward, kl, reward - kl, told(off, 1e-8)))
    return Table(
        name="position-bias",
        title=f"Where training ends under that judge, six answers, beta 1, {BIASED_STEPS} steps",
        columns={
            "method": "",
            "candidates": "",
            "judge": "",
            "E[r]": ".3f",
            "KL, nats": ".3f",
            "E[r] - KL": ".3f",
            "KL(optimum || pi), nats": ".1e",
        },
        rows=rows,
    )


def claims() -> list[Claim]:
    """What is claimed of the two orders."""
    gaps = torch.tensor(GAPS, dtype=torch.float64)
    one, both, verdicts = (judged(gaps, judge) for judge in (ONE, BOTH, BOTH_VERDICT))
    right = int(((both > 0.5) == (gaps > 0)).sum())
    return [
        claim(
            "gaps -0.4, -0.1, 0.1, 0.4, bias 0.6, one order: first said to win, of 4", int((one > 0.5).sum()), "=", 4
        ),
        claim("the same gaps, both orders averaged: said rightly, of 4", right, "=", 4),
        claim("the same gaps, verdicts of both orders averaged: ties, of 4", int((verdicts == 0.5).sum()), "=", 4),
        claim(
            "online DPO's gradient under one order against both averaged: difference", order_difference(), "<=", 1e-14
        ),
        claim("log-odds averaged: KL(optimum || pi) of XPO's pairs, nats", biased_end(ROLES, ODDS)[2], "<=", 1e-8),
        claim(
            "XPO's pairs under one order: KL over that under both",
            biased_end(ROLES, ONE)[1] / biased_end(ROLES, BOTH)[1],
            ">=",
            1.5,
        ),
    ]


def panel() -> Panel:
    """KL at the end, by judge and by who writes the candidates."""
    shown = ("unbiased", ONE, BOTH, ODDS)
    curves = [
        Curve(label=judge, x=[0, 1], y=[biased_end(name, judge)[1] for name in METHODS], style="bars", color=color)
        for judge, color in zip(shown, (6, 1, 2, 0), strict=True)
    ]
    return Panel(
        title="A judge with a position bias",
        x_label="",
        y_label="KL(policy || reference) at the end, nats",
        ticks=("two answers of the policy", "policy, then reference"),
        curves=curves,
    )
