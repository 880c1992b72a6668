"""Where rounds lead: of DPO with a reference that stays or moves, of imitation of the best, and of self-play on data.

Each round is solved to its minimum (:class:`setsail.lab.newton.Newton`), so what is compared is the rules of the rounds
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.newton import Newton
from setsail.lab.studies.length_calibration import claims as length_claims
from setsail.lab.studies.length_calibration import figure as length_figure
from setsail.lab.studies.length_calibration import table as length_table
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, Source, get
from setsail.policies.tabular import TabularPolicy
from setsail.reference import every, fixed

SHORT, LONG = 12, 40
FIXED, MOVING = "fixed", "moves every round"
Shares = tuple[float, ...]


def _row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


UNIFORM = (_row(0, 0, 0), _row(0, 1, 2))
TILTED = (_row(0, 0.3, 1), _row(1, 0.5, 0))
"""Starting logits and rewards of three responses; in the second world the start prefers what the reward does not."""


def _world(logits: Tensor, reward: Tensor, data: lab.WeightedPairs | None = None) -> lab.TabularWorld:
    nothing = lab.dataset_pairs(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
    return lab.TabularWorld(TabularPolicy(logits).frozen(), data or nothing, lab.bradley_terry(reward), reward)


def solved(method: Method, world: lab.TabularWorld, rounds: int, steps: int = SHORT) -> list[Shares]:
    """Probabilities of the first prompt's responses after each round of ``steps`` Newton steps, the start first."""
    policy = TabularPolicy(world.reference.log_probs())
    path = [_shares(policy)]
    run = lab.train(
        method.configured(staleness=steps - 1), policy, world, steps=rounds * steps, rate=1.0, direction=Newton()
    )
    for step in run:
        if step.number % steps == 0:
            path.append(_shares(policy))
    return path


def _shares(policy: TabularPolicy) -> Shares:
    return tuple(policy.log_probs().detach().exp()[0].tolist())


# Preferences: the reference stays or moves.


@cache
def _preference_rounds(rule: str, world: str, rounds: int = 3) -> list[Shares]:
    method = get("iterative-dpo").configured(
        parameters={"beta": 1.0}, reference=fixed() if rule == FIXED else every(SHORT)
    )
    return solved(method, _world(*(UNIFORM if world == "uniform" else TILTED)), rounds)


# Selection: imitate the best of four.

DRAWS = 4
FOUR = (_row(0.4, 0.3, 0.2, 0.1).log(), _row(0, 1, 2, 3))


def _raft(draws: int, temperature: float = 1.0) -> Method:
    """The catalogue's RAFT with the likelihood whose fixed point is best of n (no division by length)."""
    method = get("raft").configured(parameters={"length_normalize": False}, generations=draws)
    source = Source(origin="policy", count=None, sampling=() if temperature == 1 else (("temperature", temperature),))
    return method.with_parts(routes=(replace(method.routes[0], candidates=(source,)),))


@cache
def _selection_rounds(temperature: float = 1.0) -> list[Shares]:
    return solved(_raft(DRAWS, temperature), _world(*FOUR), 3, LONG)


# Demonstrations: the data set's answer always wins.

DEMONSTRATED = _row(0.5, 0.3, 0.2)
START = _row(0.1, 0.2, 0.7)


@cache
def _demonstration_rounds(rule: str, beta: float) -> list[Shares]:
    share, response = DEMONSTRATED[0], torch.arange(3)
    # The rejected answers of the rows are not read by this route.
    data = lab.WeightedPairs(torch.zeros_like(response), response, response.roll(1), share, torch.ones_like(share))
    method = get("spin").configured(parameters={"beta": beta}, reference=fixed() if rule == FIXED else every(SHORT))
    return solved(method, _world(START.log(), torch.zeros_like(START), data), 4)


# What is shown.


def _table() -> Table:
    rows: list[tuple[str | float | None, ...]] = []
    for world, title in (("uniform", "uniform, r = 0, 1, 2"), ("tilted", "exp(0, .3, 1), r = 1, .5, 0")):
        for rule in (FIXED, MOVING):
            for number, shares in enumerate(_preference_rounds(rule, world)):
                if number:
                    rows.append((title, rule, number, *shares))
    return Table(
        name="preferences",
        title="Iterative DPO in exact rounds, beta 1",
        columns={"start and reward": "", "reference": "", "round": "d", **{f"pi(y{i})": ".4f" for i in range(3)}},
        rows=rows,
    )


def _selection_table() -> Table:
    rows: list[tuple[str | float | None, ...]] = []
    start = TabularPolicy(FOUR[0])
    for number, shares in enumerate(_selection_rounds()):
        if number:
            rows.append((f"round {number}", DRAWS**number, *shares))
    for number in (1, 2, 3):
        best = lab.best_of_n_policy(start, FOUR[1], DRAWS**number)
        rows.append((f"best of {DRAWS**number}, exactly", DRAWS**number, *_shares(best)))
    rows.append(("round 1, drawn at temperature 0.85", DRAWS, *_selection_rounds(0.85)[1]))
    return Table(
        name="selection",
        title="RAFT in exact rounds: imitate the best of four; rewards 0, 1, 2, 3",
        columns={"policy": "", "draws it stands for": "d", **{f"pi(y{i})": ".6f" for i in range(4)}},
        rows=rows,
    )


def _demonstration_table() -> Table:
    rows: list[tuple[str | float | None, ...]] = [("the data set's answers", None, None, *DEMONSTRATED[0].tolist())]
    for beta, rule in ((1.0, MOVING), (3.0, MOVING), (1.0, FIXED)):
        for number, shares in enumerate(_demonstration_rounds(rule, beta)):
            rows.append((rule, beta, number, *shares))
    return Table(
        name="demonstrations",
        title="SPIN in exact rounds (round 0 is the start)",
        columns={"reference": "", "beta": "g", "round": "d", **{f"pi(y{i})": ".4f" for i in range(3)}},
        rows=rows,
    )


def _apart(found: Sequence[float], wanted: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(found, wanted, strict=True))


def _text(shares: Shares) -> str:
    return f"({', '.join(f'{share:.4f}' for share in shares)})"


def _preference_claims() -> list[Claim]:
    published = [
        (FIXED, "uniform", 3, (0.0900, 0.2447, 0.6652)),
        (MOVING, "uniform", 3, (0.0024, 0.0473, 0.9503)),
        (FIXED, "tilted", 3, (0.3548, 0.2905, 0.3548)),
        (MOVING, "tilted", 3, (0.6961, 0.2097, 0.0942)),
    ]
    claims = [
        Claim(
            sentence=f"iterative DPO, reference {rule}, {world} start, round {number}: distance to {_text(wanted)}",
            measured=_apart(_preference_rounds(rule, world)[number], wanted),
            relation="<=",
            expected=6e-5,
        )
        for rule, world, number, wanted in published
    ]
    annealed = max(
        _apart(shares, _shares(lab.optimal_policy(TabularPolicy(TILTED[0]), TILTED[1], 1 / number)))
        for number, shares in enumerate(_preference_rounds(MOVING, "tilted", 6))
        if number
    )
    sentence = "moving reference: round t is the optimum at beta / t, t = 1 to 6: largest difference"
    return [*claims, Claim(sentence=sentence, measured=annealed, relation="<=", expected=1e-12)]


def _selection_claims() -> list[Claim]:
    rounds, start = _selection_rounds(), TabularPolicy(FOUR[0])
    largest = max(
        _apart(rounds[number], _shares(lab.best_of_n_policy(start, FOUR[1], DRAWS**number))) for number in (1, 2, 3)
    )
    best_of_four, cooler = (0.0256, 0.2145, 0.4160, 0.3439), (0.0327, 0.2490, 0.4246, 0.2937)
    texts = [
        ("RAFT: t rounds of best of 4 are best of 4^t, t = 1 to 3: largest difference", largest, 1e-9),
        (f"RAFT, first round: distance to {_text(best_of_four)}", _apart(rounds[1], best_of_four), 1e-9),
        (
            f"RAFT drawn at temperature 0.85: distance to {_text(cooler)}",
            _apart(_selection_rounds(0.85)[1], cooler),
            6e-5,
        ),
    ]
    claims = [Claim(sentence=text, measured=found, relation="<=", expected=most) for text, found, most in texts]
    second = Claim(
        sentence="RAFT, third round: mass on the second worst of four",
        measured=rounds[3][1],
        expected=1.2198e-10,
        tolerance=1e-14,
    )
    kl = Claim(
        sentence="KL of best of four, nats; log 4 - 3/4 = 0.63629 bounds it",
        measured=lab.best_of_n_kl(start, FOUR[1], DRAWS),
        expected=0.58711,
        tolerance=6e-6,
    )
    return [*claims, second, kl]


def _demonstration_claims() -> list[Claim]:
    data, start = DEMONSTRATED[0], START[0]
    root = start * (data / start) ** (1 / 3)
    arrived = _demonstration_rounds(MOVING, 1.0)
    left = _demonstration_rounds(FIXED, 1.0)
    texts = [
        ("SPIN with beta 1 reaches the data's law in one round: largest difference", _apart(arrived[1], data.tolist())),
        ("SPIN stays there: largest change in the second round", _apart(arrived[2], arrived[1])),
        (
            "SPIN with beta 3: one round is pi (data / pi)^(1/3), normalized: largest difference",
            _apart(_demonstration_rounds(MOVING, 3.0)[1], (root / root.sum()).tolist()),
        ),
        (
            "SPIN with a fixed reference is back at the start after two rounds: largest difference",
            _apart(left[2], start.tolist()),
        ),
    ]
    return [Claim(sentence=text, measured=found, relation="<=", expected=1e-9) for text, found in texts]


# The figure: every optimizer step on the way.

RATE, ROUND, ROUNDS = 2.0, 20, 6


def _paths() -> dict[str, list[tuple[float, float]]]:
    """(KL to the start, reward) after every gradient step, of the fixed and the moving reference and of best of two."""
    found = {}
    preferences = get("iterative-dpo").configured(parameters={"beta": 1.0}, staleness=ROUND - 1)
    methods = {
        "DPO, reference moves every round": preferences.configured(reference=every(ROUND)),
        "DPO, reference fixed": preferences.configured(reference=fixed()),
        "imitation of the best of 2": _raft(2).configured(staleness=ROUND - 1),
    }
    for name, method in methods.items():
        world = _world(*TILTED)
        policy, start = TabularPolicy(TILTED[0]), TabularPolicy(TILTED[0]).frozen()
        path = [(0.0, lab.expected_reward(policy, TILTED[1]).item())]
        for _ in lab.train(method, policy, world, steps=ROUND * ROUNDS, rate=RATE):
            path.append((lab.reverse_kl(policy, start).item(), lab.expected_reward(policy, TILTED[1]).item()))
        found[name] = path
    return found


def _figure() -> Figure:
    start = TabularPolicy(TILTED[0]).frozen()
    paths = _paths()
    kls = [1.5 * (place / 60) ** 2 for place in range(61)]
    best = [lab.best_reward_at_kl(start, TILTED[1], kl) for kl in kls]
    plane, time = [], []
    for color, (name, path) in enumerate(paths.items()):
        ends = path[::ROUND]
        plane.append(Curve(label="", x=[kl for kl, _ in path], y=[reward for _, reward in path], color=color))
        plane.append(
            Curve(label=name, x=[kl for kl, _ in ends], y=[reward for _, reward in ends], style="points", color=color)
        )
        time.append(
            Curve(label=name, x=list(range(ROUNDS + 1)), y=[kl for kl, _ in ends], style="line+points", color=color)
        )
    # Last, so that it lies above the paths.
    plane.append(Curve(label="best reward at that KL", x=kls, y=best, style="dashed", color=6))
    return Figure(
        name="paths",
        title="A reference that moves lowers beta round by round",
        panels=[
            Panel(
                title=f"Every step; marks: rounds of {ROUND}",
                x_label="KL(policy || start), nats",
                y_label="expected reward",
                curves=plane,
            ),
            Panel(title="How far", x_label="round", y_label="KL(policy || start), nats", curves=time),
        ],
    )


def find() -> StudyResult:
    """Solve the rounds of each method and compare them with their closed forms."""
    return StudyResult(
        tables=[_table(), _selection_table(), _demonstration_table(), length_table()],
        claims=[*_preference_claims(), *_selection_claims(), *_demonstration_claims(), *length_claims()],
        figures=[_figure(), length_figure()],
    )


STUDY = Study(
    name="rounds",
    question="Where do rounds lead, and what does the reference have to do with it?",
    result="a fixed reference stops at the optimum of RLHF; a moving one takes beta / t in round t",
    source="arXiv 2312.16682, arXiv 2405.07863, arXiv 2304.06767, arXiv 2401.01335, arXiv 2406.09760",
    seconds=3,
    find=find,
)
