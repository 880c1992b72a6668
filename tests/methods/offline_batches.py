"""Groups of the token world in the form that a method reads, with the facts that its objective asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.lab import TabularWorld
from setsail.methods import Method
from setsail.objectives import GroupLogProbs
from setsail.policies.tabular import EnumerablePolicy

Offline = tuple[GroupLogProbs, Tensor | None, Tensor | None]


def offline(method: Method, policy: EnumerablePolicy, world: TabularWorld) -> Offline:
    """The data set's pairs; as lists of two valued p and 1 - p; or both answers marked, one by one."""
    logps, p = world.data.log_probs(policy, world.reference).group(), world.data.p
    assert p is not None
    if not method.reads_values:
        return logps, p, None
    values = torch.stack([p, 1 - p], -1)
    if method.form != "singles":
        return logps, p, values
    length = None if logps.length is None else logps.length.reshape(-1, 1)
    singles = GroupLogProbs(logps.policy.reshape(-1, 1), logps.reference.reshape(-1, 1), length)
    return singles, None, torch.where(values >= 0.5, 1.0, -1.0).to(p).reshape(-1, 1)


def facts(method: Method, logps: GroupLogProbs, values: Tensor | None) -> dict[str, Tensor]:
    """On-policy samples, means of the groups themselves, and some number of the batch."""
    number = torch.tensor(0.2, dtype=torch.float64)
    known = {
        "sampling": logps.policy.detach(),
        "group-mean": None if values is None else values.mean(-1),
        "batch-mean": number.expand(len(logps.policy)),
        "mismatched": number,
        "midpoint": number,
    }
    return {argument: known[fact] for argument, fact in method.facts.items()}
