"""A policy that optimizes a learnt reward: the learnt reward rises, the gold reward has a top, and pessimism moves it.

Forty independent worlds (:func:`setsail.lab.learnt_reward.rare_is_worse`): fifty responses, two hundred noisy
comparisons of the reference's draws, a Bradley-Terry reward fitted to them. Policies are compared at equal KL to the
reference; intervals are over worlds.
"""

from __future__ import annotations

from functools import cache

import torch

from setsail import lab
from setsail.lab.learnt_reward import tilted_to
from setsail.lab.newton import Newton
from setsail.lab.studies.learnt_rewards import (
    BETAS,
    COUNTS,
    ENSEMBLES,
    GOLD,
    KLS,
    LAST,
    MEAN,
    ONE,
    PRIOR,
    VARIANCE,
    WORLDS,
    WORST,
    best_kl,
    best_of_n_estimates,
    best_of_n_gains,
    expected,
    gain_at_its_kl,
    gold_gains,
    learnt_by,
    lower_bound,
    lucky_mass,
    pessimistic_path,
    setting,
    standard_error,
    tilted_as_far,
)
from setsail.lab.studies.pessimism import claims as exact_claims
from setsail.lab.studies.pessimism import groups_table, pessimism_table
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import get
from setsail.policies.tabular import TabularPolicy
from setsail.reference import fixed


def _table() -> Table:
    shown = (0.25, 0.5, 1.0, 1.5, 2.5, 4.0)
    rows: list[tuple[str | float | None, ...]] = []
    for name in (ONE, *ENSEMBLES, PRIOR, GOLD):
        gains, top = gold_gains(name), best_kl(name)
        error = None if name == ONE else standard_error(gains[1.0] - gold_gains(ONE)[1.0])
        rows.append((name, *(float(gains[kl].mean()) for kl in shown), top, float(gains[top].mean()), error))
    return Table(
        name="curves",
        title="Gold reward gained over the reference, mean of 40 worlds, by KL to the reference",
        columns={
            "reward that is optimized": "",
            **{f"{kl:g} nats": ".3f" for kl in shown},
            "best KL": ".2f",
            "gain there": ".3f",
            "s.e. of the difference to one model, 1 nat": ".3f",
        },
        rows=rows,
    )


def _pessimistic_table() -> Table:
    kls, gains = pessimistic_path()
    rows = []
    for place in range(2, len(BETAS)):
        others = [gain_at_its_kl(name, place) for name in (ONE, WORST)]
        rows.append(
            (
                BETAS[place],
                float(kls[place].mean()),
                float(gains[place].mean()),
                *(float(other.mean()) for other in others),
                standard_error(gains[place] - others[0]),
            )
        )
    return Table(
        name="rpo",
        title="The pessimistic policy (RPO, eta 0.1) against others at the same KL in every world: gold reward gained",
        columns={
            "beta": ".2f",
            "mean KL, nats": ".3f",
            "RPO": ".3f",
            "one model": ".3f",
            "worst of 5": ".3f",
            "s.e. of RPO - one model": ".3f",
        },
        rows=rows,
    )


# Trained instead of solved.


@cache
def _trained() -> list[tuple[float, float, float, float, float]]:
    """Online DPO against one world's learnt reward: beta, distance to the closed form, KL, learnt and gold reward."""
    given, learnt = setting(), learnt_by(ONE)[:1]
    start = TabularPolicy(given.reference.log_probs()[:1])
    nothing = lab.dataset_pairs(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
    world = lab.TabularWorld(start.frozen(), nothing, lab.bradley_terry(learnt), learnt)
    rows = []
    for beta in (4.0, 1.0, 0.5):
        method = get("online-dpo").configured(parameters={"beta": beta}, reference=fixed(), staleness=11)
        policy = TabularPolicy(start.log_probs())
        for _ in lab.train(method, policy, world, steps=12, rate=1.0, direction=Newton()):
            pass
        best = lab.optimal_policy(start, learnt, beta).log_probs().exp()
        apart = (policy.log_probs().exp() - best).abs().max().item()
        kl = lab.reverse_kl(policy, start.frozen()).item()
        gold = lab.expected_reward(policy, given.gold[:1]).item()
        rows.append((beta, apart, kl, lab.expected_reward(policy, learnt).item(), gold))
    return rows


def _best_table() -> Table:
    rows = []
    for n in COUNTS:
        (kl, gain), estimate = best_of_n_gains(ONE, n), best_of_n_estimates(ONE, n)
        rows.append(
            (
                n,
                float(kl.mean()),
                lab.best_of_n_kl_bound(n),
                float(gain.mean()),
                float(estimate.mean()),
                standard_error(estimate - gain),
                float(tilted_as_far(ONE, n).mean()),
                float(best_of_n_gains(WORST, n)[1].mean()),
            )
        )
    return Table(
        name="best-of-n",
        title="Best of n by a learnt reward: gold reward gained, mean of 40 worlds",
        columns={
            "n": "d",
            "KL, nats": ".3f",
            "log n - (n - 1) / n": ".3f",
            "one model": ".3f",
            "estimated from 512 draws": ".3f",
            "s.e. of the estimate": ".3f",
            "pi_ref exp(r / beta) of that KL": ".3f",
            "worst of 5": ".3f",
        },
        rows=rows,
    )


def _trained_table() -> Table:
    return Table(
        name="trained",
        title="Online DPO trained against the learnt reward of the first world",
        columns={
            "beta": "g",
            "distance to pi_ref exp(r / beta)": ".1e",
            "KL, nats": ".3f",
            "learnt reward": ".3f",
            "gold reward": ".3f",
        },
        rows=_trained(),
    )


def _differences() -> list[tuple[str, torch.Tensor]]:
    """What is claimed to be larger, with the difference in every world; tops are chosen on other worlds than judged."""
    chosen, judged = slice(0, 20), slice(20, WORLDS)
    reference, one, reward = setting().reference, gold_gains(ONE), learnt_by(ONE)
    top = best_kl(ONE, chosen)
    far, near = (expected(tilted_to(reference, reward, kl), reward) for kl in (LAST, top))
    best = {(name, n): best_of_n_gains(name, n)[1] for name in (ONE, WORST) for n in COUNTS}
    top_n = max(COUNTS, key=lambda n: best[ONE, n][chosen].mean().item())
    most = COUNTS[-1]
    return [
        ("learnt reward at 4 nats over that at the top of the gold reward", far - near),
        ("top of the gold reward over the reference", one[top][judged]),
        ("top of the gold reward over 4 nats", (one[top] - one[LAST])[judged]),
        (
            "mass on responses that won all of one to three comparisons, 4 nats over 0",
            lucky_mass(LAST) - lucky_mass(0.0),
        ),
        *((f"gold reward at 1 nat, {name} over one model", gold_gains(name)[1.0] - one[1.0]) for name in ENSEMBLES),
        ("gold reward at 1.5 nats, worst of 5 over mean of 5", gold_gains(WORST)[1.5] - gold_gains(MEAN)[1.5]),
        ("gold reward at 1.5 nats, right prior over worst of 5", gold_gains(PRIOR)[1.5] - gold_gains(WORST)[1.5]),
        (
            "gold reward at equal KL, RPO at beta 0.33 over one model",
            pessimistic_path()[1][-4] - gain_at_its_kl(ONE, -4),
        ),
        ("best of n: top of the gold reward over n = 256", (best[ONE, top_n] - best[ONE, most])[judged]),
        ("gold reward at equal KL, best of 8 over pi_ref exp(r / beta)", best[ONE, 8] - tilted_as_far(ONE, 8)),
        ("best of 256: gold reward, worst of 5 over one model", best[WORST, most] - best[ONE, most]),
    ]


def _claims() -> list[Claim]:
    off = max(
        abs((estimate - gain).mean().item()) / standard_error(estimate - gain)
        for n in COUNTS[1:]
        for gain, estimate in [(best_of_n_gains(ONE, n)[1], best_of_n_estimates(ONE, n))]
    )
    return [
        *(
            Claim(
                sentence=f"{text}: 95 % lower bound, n = {len(values)}",
                measured=lower_bound(values),
                relation=">=",
                expected=0.0,
            )
            for text, values in _differences()
        ),
        Claim(
            sentence="online DPO lands on pi_ref exp(r / beta) of the learnt reward: largest difference",
            measured=max(row[1] for row in _trained()),
            relation="<=",
            expected=1e-6,
        ),
        Claim(
            sentence="best of n = 2 to 256, estimate from 512 draws: largest distance to the exact value, s.e.",
            measured=off,
            relation="<=",
            expected=3.0,
        ),
    ]


def _curve(name: str, color: int, label: str = "", bars: bool = False) -> Curve:
    gains = gold_gains(name)
    return Curve(
        label=label or name,
        x=[0.0, *gains],
        y=[0.0, *(float(gain.mean()) for gain in gains.values())],
        error=[0.0, *(standard_error(gain) for gain in gains.values())] if bars else None,
        style="line+points",
        color=color,
    )


def _learnt_curve() -> Curve:
    reference, reward = setting().reference, learnt_by(ONE)
    start = expected(reference, reward)
    rises = [expected(tilted_to(reference, reward, kl), reward) - start for kl in KLS]
    return Curve(
        label="learnt reward",
        x=[0.0, *KLS],
        y=[0.0, *(float(rise.mean()) for rise in rises)],
        error=[0.0, *(standard_error(rise) for rise in rises)],
        style="line+points",
        color=1,
    )


def _best_panel() -> Panel:
    exact = [
        Curve(label=name, x=COUNTS, y=[best_of_n_gains(name, n)[1].mean().item() for n in COUNTS], color=color)
        for name, color in ((ONE, 0), (WORST, 3))
    ]
    estimates = [best_of_n_estimates(ONE, n) for n in COUNTS]
    estimated = Curve(
        label="estimated from 512 draws",
        x=COUNTS,
        y=[each.mean().item() for each in estimates],
        error=[standard_error(each) for each in estimates],
        style="points",
        color=6,
    )
    return Panel(
        title="Best of n", x_label="n", y_label="gold reward gained", x_scale="log", curves=[*exact, estimated]
    )


def _figure() -> Figure:
    plane = "KL(policy || reference), nats"
    learnt = Panel(
        title="The learnt reward rises, the gold reward has a top",
        x_label=plane,
        y_label="gained over the reference",
        curves=[_curve(ONE, 0, "gold reward", bars=True), _learnt_curve()],
    )
    kls, gains = pessimistic_path()
    rpo = Curve(
        label="pessimistic (RPO)",
        x=[0.0, *kls[3:].mean(1).tolist()],
        y=[0.0, *gains[3:].mean(1).tolist()],
        style="line+points",
        color=5,
    )
    pessimistic = Panel(
        title="Gold reward under pessimism",
        x_label=plane,
        y_label="gold reward gained",
        curves=[
            *(_curve(name, color) for name, color in ((ONE, 0), (MEAN, 2), (WORST, 3), (VARIANCE, 4))),
            rpo,
            _curve(PRIOR, 1),
        ],
    )
    return Figure(
        name="curves",
        title="Optimizing a reward learnt from 200 comparisons (40 worlds, bars: one standard error)",
        panels=[learnt, pessimistic, _best_panel()],
    )


def find() -> StudyResult:
    """Fit, optimize, judge by gold; then the exact facts about pessimism and ensembles."""
    return StudyResult(
        tables=[_table(), _pessimistic_table(), _best_table(), _trained_table(), pessimism_table(), groups_table()],
        claims=[*_claims(), *exact_claims()],
        figures=[_figure()],
    )


STUDY = Study(
    name="over-optimization",
    question="What becomes of the gold reward when a policy optimizes a learnt one, and does pessimism help?",
    result="it peaks at about 1 nat and falls; ensembles and pessimism raise the peak, the right prior raises it more",
    source="arXiv 2310.02743, arXiv 2405.16436, arXiv 2402.08925, arXiv 2409.15360",
    seconds=5,
    find=find,
)
