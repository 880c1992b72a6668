"""Terms that reward exploration: they push the policy off what it, or its reference, already says.

Each is ``term(policy, reference) -> value``, shapes ``(completions,)``: log-probs in nats of completions drawn from
the *reference*, gradient through the policy's only. They are minimized together with a preference loss, times a small
positive coefficient; the sign is part of their definition.
"""

from __future__ import annotations

from torch import Tensor


def sample_likelihood(policy: Tensor, reference: Tensor) -> Tensor:
    """``log pi(y)`` of completions drawn from the reference: the optimism term of exploratory preference optimization.

        loss = preference loss + alpha * E_{y ~ pi_ref} [log pi(y|x)]

    Args:
        policy: log pi(y|x) of completions drawn from the reference, shape ``(completions,)``, nats, with gradient.
        reference: log pi_ref(y|x) of the same; not read.

    Returns:
        Shape ``(completions,)``. In the logits of a tabular policy the expected gradient is ``pi_ref - pi``: zero at
        the reference, and beyond it a step down (alpha > 0) moves on, away from what the reference would say. It is
        the negative of :func:`setsail.objectives.forward_kl_sampled` up to a constant, so the two undo one another.

    Assumption: the completions are the *reference's*. On completions of the policy the expected gradient is zero, and
    on the chosen and rejected completions of a pair it is another method. The term has no lower bound on a fixed set of
    completions: alpha is small (about 1e-5 a summed nat), and :func:`floored_log_ratio` has a floor.

    Source: arXiv 2405.21046, algorithm 1. The coefficient is the paper's alpha, without a factor beta.

    >>> import torch
    >>> sample_likelihood(torch.tensor([-3.0]), torch.tensor([-2.0])).item()
    -3.0
    """
    return policy


def floored_log_ratio(policy: Tensor, reference: Tensor, floor: float = -10.0) -> Tensor:
    """``max(log pi(y) - log pi_ref(y), floor)``: the optimism term of self-exploring language models, with a floor.

        loss = preference loss + alpha beta * E_{y ~ pi_ref} [max(log pi(y|x) - log pi_ref(y|x), floor)]

    Args:
        policy: log pi(y|x) of completions drawn from the reference, shape ``(completions,)``, nats, with gradient.
        reference: log pi_ref(y|x) of the same; no gradient flows into it.
        floor: log-ratio in nats, < 0, below which a completion is not pushed any further; ``-inf`` = no floor.

    Returns:
        Shape ``(completions,)``, at least ``floor``. The gradient is ``grad log pi(y)`` above the floor, as that of
        :func:`sample_likelihood`, and zero below it.

    Raises:
        ValueError: floor >= 0, which would switch the term off at the reference, where training starts.

    Source: arXiv 2405.19332, the objective after its inner maximization. The coefficient there is alpha times beta. The
    floor is ours: without one the loss has no lower bound, since a completion that no preference holds up can be pushed
    down forever. At -10 nats its probability is 1/22,000 of what the reference gave it: all but 0.005 % of that mass
    has moved elsewhere, which is all that the term is for.

    >>> import torch
    >>> floored_log_ratio(torch.tensor([-18.0, -40.0]), torch.tensor([-19.0, -19.0])).tolist()
    [1.0, -10.0]
    """
    if not floor < 0:
        raise ValueError(f"floor must be a log-ratio below 0 nats, got {floor}; -10 is usual, -inf leaves it out")
    return (policy - reference.detach()).clamp(min=floor)
