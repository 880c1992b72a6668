"""The shapes that most methods have: offline pairs, lists or single answers, fresh pairs, rounds, groups, imitation.

Each gives a whole :class:`~setsail.methods.spec.Method` without words, to be taken as it is or changed by
:meth:`~setsail.methods.spec.Method.with_parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from setsail.methods.facts import Fact
from setsail.methods.parts import Addend, Route, Source, on_policy
from setsail.methods.spec import Method
from setsail.objectives import dpo, likelihood
from setsail.reference import every

Objective = Callable[..., Tensor]

DPO = Method(objective=dpo, parameters={"beta": 0.1, "label_smoothing": 0.0})
ONLINE = DPO.with_parts(routes=(on_policy(weight=1.0),), offline=False)
# A round: sixteen optimizer steps whose completions and reference are the policy of the round's start.
ROUNDS = ONLINE.with_parts(reference=every(16), staleness=15)


def pairs(objective: Objective, *addends: Addend, **parameters: Any) -> Method:
    """An objective on the data set's pairs."""
    return DPO.with_parts(objective=objective, parameters=parameters, addends=addends)


def lists(objective: Objective, *addends: Addend, facts: Mapping[str, Fact] | None = None, **parameters: Any) -> Method:
    """An objective on all scored answers of each row."""
    return pairs(objective, *addends, **parameters).with_parts(form="lists", facts=facts or {})


def singles(objective: Objective, facts: Mapping[str, Fact], **parameters: Any) -> Method:
    """An objective on answers marked desirable or undesirable, one by one."""
    return DPO.with_parts(objective=objective, parameters=parameters, form="singles", facts=facts)


def judged(*candidates: Source, name: str = "online", weight: float = 1.0, **changes: Any) -> Route:
    """A route whose candidates a labeler compares, unless ``changes`` say otherwise."""
    return Route(name=name, candidates=candidates, weight=weight, **{"preference": "labeler", **changes})


def best_worst(generations: int, label: str = "hard", values: str = "scores", **changes: Any) -> Method:
    """Rounds of pairs of the best and the worst of several draws."""
    route = on_policy(weight=1.0, pairing="best-worst", label=label, values=values)
    return ROUNDS.with_parts(routes=(route,), generations=generations, **changes)


def drawn_groups(
    objective: Objective,
    generations: int,
    facts: Mapping[str, Fact] | None = None,
    pairing: str = "all",
    **parameters: Any,
) -> Method:
    """An objective over the rewards of all fresh completions of a prompt."""
    return ONLINE.with_parts(
        objective=objective,
        parameters=parameters,
        routes=(on_policy(weight=1.0, pairing=pairing),),
        generations=generations,
        facts=facts or {},
    )


def imitation(route: Route, **changes: Any) -> Method:
    """The likelihood of completions that were selected."""
    return ONLINE.with_parts(objective=likelihood, parameters={"length_normalize": True}, routes=(route,), **changes)
