"""Every loss that TRL 1.16 also has, against TRL's own code on the same numbers; and each deliberate difference.

``DPOTrainer`` computes its losses inside one method that also runs the model. It is called here unbound, on an object
that holds the settings it reads, with a model that returns given log-probs: the numbers are TRL's, not a restatement.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from setsail.core import stream
from setsail.objectives import (
    LogProbs,
    PairwiseObjective,
    aot,
    aot_unpaired,
    apo_down,
    apo_zero,
    cpo,
    discopop,
    dpo,
    exo_pair,
    f_dpo,
    ipo,
    length_normalized_dpo,
    nca_pair,
    orpo,
    robust_dpo,
    simpo,
    slic,
    slic_hf,
    sppo_hard,
)

PAIRS = 6
BETA = 0.3
# TRL's name of a loss: the objective here, and what TRL has to be told besides beta.
COUNTERPARTS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "sigmoid": (dpo, {}),
    "hinge": (slic, {}),
    "ipo": (partial(ipo, length_normalize=True), {}),
    "exo_pair": (partial(exo_pair, label_smoothing=0.01), {"label_smoothing": 0.01}),
    "nca_pair": (nca_pair, {}),
    "robust": (partial(robust_dpo, label_smoothing=0.2), {"label_smoothing": 0.2}),
    "sppo_hard": (sppo_hard, {}),
    "aot": (aot, {}),
    "aot_unpaired": (aot_unpaired, {}),
    "apo_zero": (apo_zero, {}),
    "apo_down": (apo_down, {}),
    "discopop": (discopop, {}),
    "sigmoid_norm": (length_normalized_dpo, {}),
}
NOT_PAIRWISE = {
    "sft": "the likelihood of the chosen completion: an addend, no comparison",
    "bco_pair": "without the running mean that its paper subtracts, it is no loss of that paper",
}
DIVERGENCES = {"forward_kl": "forward_kl", "jensen_shannon": "js_divergence", "reverse_kl": "reverse_kl"}


@pytest.fixture(scope="module")
def dpo_trainer() -> Any:
    trl = pytest.importorskip("trl", minversion="1.16", reason="parity needs trl, of the development extra")
    return trl.DPOTrainer


@pytest.fixture(scope="module")
def experimental() -> Any:
    """TRL's trainers of CPO (with SimPO) and ORPO."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        pytest.importorskip("trl", minversion="1.16", reason="parity needs trl, of the development extra")
        cpo_module = pytest.importorskip("trl.experimental.cpo")
        orpo_module = pytest.importorskip("trl.experimental.orpo")
    return SimpleNamespace(cpo=cpo_module.CPOTrainer, orpo=orpo_module.ORPOTrainer)


def _record(dtype: torch.dtype = torch.float64) -> LogProbs:
    numbers = (torch.from_numpy(stream(0, "parity").normal(size=(4, PAIRS))) * 1.5 - 12).to(dtype)
    lengths = torch.from_numpy(stream(0, "parity lengths").integers(2, 9, size=(2, PAIRS)))
    first, second = (part.clone().requires_grad_() for part in numbers[:2])
    return LogProbs(first, second, numbers[2], numbers[3], lengths[0], lengths[1])


ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda tensor: tensor, gather_for_metrics=lambda tensor: tensor
)


def _trl(trainer: Any, logps: LogProbs, loss_type: str, beta: float = BETA, **settings: Any) -> Tensor:
    """TRL's loss of a batch whose first completions are chosen, with gradient into the record."""
    assert logps.length_first is not None
    assert logps.length_second is not None
    lengths = torch.cat((logps.length_first, logps.length_second))
    position = torch.arange(int(lengths.max()) + 1)
    # One prompt token, then the completion, whose first token carries its whole log-prob.
    completion = ((position > 0) & (position <= lengths[:, None])).long()
    sums = torch.cat((logps.policy_first, logps.policy_second))[:, None]
    log_probs = torch.cat((sums, sums.new_zeros(len(sums), len(position) - 2)), 1)
    nothing = torch.zeros_like(log_probs).detach()
    outputs = SimpleNamespace(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    read = {
        "model": SimpleNamespace(training=True),
        "accelerator": ACCELERATOR,
        "args": SimpleNamespace(discopop_tau=settings.pop("discopop_tau", 0.05)),
        "beta": beta,
        "loss_types": [loss_type],
        "loss_weights": [1.0],
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "use_weighting": False,
        "aux_loss_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    inputs = {
        "input_ids": torch.zeros_like(completion),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "ref_chosen_logps": logps.reference_first,
        "ref_rejected_logps": logps.reference_second,
    }
    loss: Tensor = trainer._compute_loss(SimpleNamespace(**read | settings), lambda **_: outputs, inputs, False)
    return loss


def _assert_same(ours: Tensor, theirs: Tensor, logps: LogProbs) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, check_dtype=False)
    leaves = (logps.policy_first, logps.policy_second)
    for found, wanted in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_every_loss_of_trl_is_accounted_for(dpo_trainer: Any) -> None:
    with pytest.raises(ValueError, match="Unknown loss type") as refused:
        _trl(dpo_trainer, _record(), "none-of-them")
    known = set(re.findall(r"'(\w+)'", str(refused.value)))
    assert known == set(COUNTERPARTS) | set(NOT_PAIRWISE)


@pytest.mark.parametrize("loss_type", COUNTERPARTS)
@pytest.mark.parametrize("beta", [0.05, 0.3])
def test_the_losses_of_trls_dpo_trainer(dpo_trainer: Any, loss_type: str, beta: float) -> None:
    logps, (objective, settings) = _record(), COUNTERPARTS[loss_type]
    _assert_same(objective(logps, None, beta).mean(), _trl(dpo_trainer, logps, loss_type, beta, **settings), logps)


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_discopops_transition_is_as_wide_as_trls(dpo_trainer: Any, tau: float) -> None:
    logps = _record()
    _assert_same(discopop(logps, None, BETA, tau).mean(), _trl(dpo_trainer, logps, "discopop", discopop_tau=tau), logps)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_divergences_of_trls_dpo_trainer(dpo_trainer: Any, divergence: str) -> None:
    logps = _record()
    ours = f_dpo(logps, None, BETA, divergence).mean()  # type: ignore[arg-type]
    _assert_same(ours, _trl(dpo_trainer, logps, "sigmoid", f_divergence_type=DIVERGENCES[divergence]), logps)


def _cpo(trainer: Any, logps: LogProbs, **settings: Any) -> Tensor:
    """The loss of each pair; TRL hands mean log-probs to SimPO and sums to the others."""
    read = {"alpha": 0.0, "accelerator": ACCELERATOR, "beta": BETA, "label_smoothing": 0.0} | settings
    losses, _, _ = trainer.cpo_loss(SimpleNamespace(**read), logps.policy_first, logps.policy_second)
    return losses


@pytest.mark.parametrize(("loss_type", "objective"), [("sigmoid", cpo), ("hinge", slic_hf)])
def test_the_losses_of_trls_cpo_trainer(experimental: Any, loss_type: str, objective: PairwiseObjective) -> None:
    logps = _record()
    ours = objective(logps, None, beta=BETA)  # type: ignore[call-arg]
    _assert_same(ours.sum(), _cpo(experimental.cpo, logps, loss_type=loss_type).sum(), logps)


@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 0.5), (2.0, 1.6)])
def test_simpo_and_its_gamma_are_trls(experimental: Any, beta: float, gamma: float) -> None:
    logps = _record()
    settings = {"loss_type": "simpo", "beta": beta, "simpo_gamma": gamma}
    theirs = _cpo(experimental.cpo, logps.per_token(), **settings)
    _assert_same(simpo(logps, None, beta, gamma).sum(), theirs.sum(), logps)


def _orpo(trainer: Any, logps: LogProbs) -> Tensor:
    means = logps.per_token()
    read = SimpleNamespace(beta=BETA, accelerator=ACCELERATOR)
    losses, *_ = trainer.odds_ratio_loss(read, means.policy_first, means.policy_second)
    return losses


def test_orpo_is_what_trl_subtracts(experimental: Any) -> None:
    """A deliberate difference of sign: TRL's term is negative, and its trainer subtracts it from the likelihood."""
    logps = _record()
    _assert_same(orpo(logps, None, BETA).sum(), -_orpo(experimental.orpo, logps).sum(), logps)


# Deliberate differences.


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7])
def test_our_alpha_is_the_papers_and_trls_is_one_minus_it(dpo_trainer: Any, alpha: float) -> None:
    logps = _record(torch.float32)
    ours = f_dpo(logps, None, BETA, "alpha", alpha).mean()

    def theirs(coefficient: float) -> Tensor:
        settings = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": coefficient}
        return _trl(dpo_trainer, logps, "sigmoid", **settings)

    _assert_same(ours, theirs(1 - alpha), logps)
    agree_by_default = abs(ours.item() - theirs(alpha).item()) < 1e-6
    assert agree_by_default is (alpha == 0.5)


def test_trls_hinge_is_slic_and_not_the_papers_slic_hf(dpo_trainer: Any) -> None:
    logps = _record()
    assert not torch.allclose(slic_hf(logps, None, BETA).mean(), _trl(dpo_trainer, logps, "hinge"), atol=1e-2)


def test_trls_ipo_is_ours_with_length_normalization_only(dpo_trainer: Any) -> None:
    logps = _record()
    assert not torch.allclose(ipo(logps, None, BETA).mean(), _trl(dpo_trainer, logps, "ipo"), atol=1e-2)


def _far_off() -> LogProbs:
    """A pair whose chosen completion the policy has driven 3000 nats down, and its rejected one half as far."""
    reference = torch.full((1,), -100.0)
    record = LogProbs(reference - 3000, reference - 1500, reference, reference, *torch.tensor([[5], [5]]))
    return replace(record, policy_first=record.policy_first.requires_grad_())


@pytest.mark.parametrize(
    ("loss_type", "settings", "objective"),
    [
        ("discopop", {}, discopop),
        ("sigmoid", {"f_divergence_type": "forward_kl"}, partial(f_dpo, divergence="forward_kl")),
    ],
)
def test_pairs_far_off_are_finite_here_and_not_in_trl(
    dpo_trainer: Any, loss_type: str, settings: dict[str, Any], objective: PairwiseObjective
) -> None:
    assert not bool(_trl(dpo_trainer, _far_off(), loss_type, **settings).isfinite())
    assert bool(objective(_far_off(), None, beta=BETA).isfinite().all())  # type: ignore[call-arg]


def test_soft_labels_are_ours_alone(dpo_trainer: Any) -> None:
    """TRL has no labels but hard ones: a soft one here is the average of TRL's two losses."""
    logps, p = _record(), 0.7
    label = torch.full((PAIRS,), p, dtype=torch.float64)
    for loss_type, (objective, settings) in COUNTERPARTS.items():
        if objective in (aot, aot_unpaired):
            continue
        first, second = (_trl(dpo_trainer, each, loss_type, **settings) for each in (logps, logps.swapped()))
        ours = objective(logps, label, BETA).mean()
        torch.testing.assert_close(ours, p * first + (1 - p) * second, atol=1e-5, rtol=1e-5)
