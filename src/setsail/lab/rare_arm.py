"""One good answer that nobody gives: a world in which preferences alone never reach the best response.

Axis legend: ``rounds`` of one label each, ``runs`` that differ in their uniforms, ``policies`` of a finite class,
``responses``. Log-probs in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from setsail.core import SpecError
from setsail.lab.groups import TabularWorld
from setsail.lab.pairs import bradley_terry, dataset_pairs
from setsail.methods import Method, route_loss
from setsail.objectives import GroupLogProbs
from setsail.policies.tabular import TabularPolicy

RESPONSES, COMMON, GOOD = 10, 0, 7
RARE, SCALE, RAISE = 1e-4, 4.0, 15.0
_WRITTEN_BY = {"policy": (0,), "reference": (1,), "compared": (0, 1)}


def rare_arm() -> tuple[TabularPolicy, TabularWorld]:
    """One prompt and ten responses; the reference gives the best of them, number 7, once in 10,000 draws.

    Rewards are 0.5 for response 0, which the reference gives otherwise (1 - 9e-4), 1 for response 7 and 0 for the
    other eight, 1e-4 each. A labeler prefers by Bradley-Terry at four times the reward. The data set compares response
    0 with the eight bad ones; the good one does not occur in it. The policy starts at the reference.
    """
    share = torch.full((1, RESPONSES), RARE, dtype=torch.float64)
    share[0, COMMON] = 1 - RARE * (RESPONSES - 1)
    reward = torch.zeros(1, RESPONSES, dtype=torch.float64)
    reward[0, COMMON], reward[0, GOOD] = 0.5, 1.0
    preference = bradley_terry(SCALE * reward)
    bad = [response for response in range(RESPONSES) if response not in (COMMON, GOOD)]
    data = dataset_pairs(torch.tensor([(0, COMMON, response) for response in bad]), preference[0, COMMON, bad])
    policy = TabularPolicy(share.log())
    return policy, TabularWorld(policy.frozen(), data, preference, reward)


@dataclass(frozen=True, slots=True)
class Search:
    """What one run did.

    Attributes:
        choices: the policy of the class that each round ended with: 0 = the reference, k + 1 = response k raised.
        drawn: the response that the policy drew in each round.
        mass: probability of the good response after each round.
    """

    choices: tuple[int, ...]
    drawn: tuple[int, ...]
    mass: tuple[float, ...]

    @property
    def found(self) -> int | None:
        """The round, counted from 1, in which the policy first drew the good response; None = never."""
        return self.drawn.index(GOOD) + 1 if GOOD in self.drawn else None


def raised_class() -> Tensor:
    """Log-probs of the reference and of the ten policies that raise one response by 15 nats, ``(policies, responses)``.

    >>> [round(share, 4) for share in raised_class()[[0, 8], GOOD].exp().tolist()]
    [0.0001, 0.997]
    """
    reference = rare_arm()[0].log_probs().detach()
    return torch.cat((reference, (reference + RAISE * torch.eye(RESPONSES, dtype=torch.float64)).log_softmax(-1)))


def search(method: Method, uniforms: Tensor) -> Search:
    """Learn from one label a round, over the finite class :func:`raised_class` and with *all data so far*.

        pi_{t+1} = argmin over the class of  sum_{i <= t} [loss(pair_i) + coefficient * addend(completion_i)]

    Each round compares a draw of pi_t with a draw of the reference; of policies with equal sums the first is taken, so
    that ties go to the reference.

    Args:
        method: its one route, objective and addends; the sums run over all rounds, which training's do not.
        uniforms: numbers in [0, 1) for the two draws and the label of each round, shape ``(rounds, 3)``.

    Raises:
        SpecError: a route other than a draw of the policy against one of the reference, or addends on other
            completions.

    Source: arXiv 2405.21046, algorithm 1.

    >>> from setsail import methods
    >>> from setsail.core import stream
    >>> method = methods.get("xpo").configured(addends={"optimism": 0.02})
    >>> search(method, torch.from_numpy(stream(0, "rare-arm").random((60, 3)))).found is not None
    True
    """
    route = method.routes[0]
    origins = tuple(str(source) for source in route.candidates)
    if origins != ("policy", "reference") or any(addend.samples not in _WRITTEN_BY for addend in method.addends):
        raise SpecError(f"{method.name}: the search compares a draw of the policy with one of the reference; use xpo")
    world = rare_arm()[1]
    policies = raised_class()
    below = policies.exp().cumsum(-1)[:, :-1].contiguous()
    total = torch.zeros(len(policies), dtype=torch.float64)
    current, choices, drawn, mass = 0, [], [], []
    for numbers in uniforms:
        first = int(torch.searchsorted(below[current], numbers[0], right=True))
        second = int(torch.searchsorted(below[0], numbers[1], right=True))
        members = torch.tensor([first, second])
        logps = GroupLogProbs(policies[:, members], policies[0, members].expand(len(policies), 2))
        won = (numbers[2] < world.preference[0, first, second]).double().expand(len(policies))
        total = total + route_loss(method, route, logps, won).surrogate
        for addend in method.addends:
            read = list(_WRITTEN_BY[addend.samples])
            total = total + addend.coefficient * addend.function(logps.policy[:, read], logps.reference[:, read]).sum(
                -1
            )
        # Policies that differ in undrawn responses alone tie, and rounding must not decide.
        current = int((total <= total.min() + 1e-9).int().argmax())
        choices.append(current)
        drawn.append(first)
        mass.append(policies[current, GOOD].exp().item())
    return Search(tuple(choices), tuple(drawn), tuple(mass))
