"""AdvInfoNCE: softmax loss whose negatives are weighted by an adversary."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.errors import require, require_positive
from recloss.losses.base import Batch, Loss, Phase
from recloss.similarity import sampled_scores

_DIM = 64


def advinfonce(pos: Tensor, neg: Tensor, adv_logits: Tensor, tau: float, neg_weight: float) -> Tensor:
    """``l_b = -log(e^(p_b/tau) / (e^(p_b/tau) + w N sum_j q_bj e^(n_bj/tau)))`` with ``q_b = softmax_j(g_b)``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        adv_logits: (B, N) hardness g of the negatives; the adversary ascends the loss in it.
        tau: temperature.
        neg_weight: w, the weight of the negatives against the positive.

    Returns:
        (B,) losses, above 0.
    """
    pooled = (neg / tau + adv_logits.log_softmax(1)).logsumexp(1) + math.log(neg_weight * neg.shape[1])
    return -F.logsigmoid(pos / tau - pooled)


class AdvInfoNCE(Loss):
    """AdvInfoNCE on cosines; the hardness of (user, negative) is the product of two tables the model knows nothing of.

    State: ``adv_user`` (n_users, 64) and ``adv_item`` (n_items, 64), parameters drawn Xavier-normal. They ascend the
    loss, with the model's weight decay, in "attack" passes of their own before the ordinary pass of an epoch; each side
    rests while the other moves.

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature, above 0.
        neg_weight: weight of the negatives against the positive, above 0.
        adv_every: T_adv; epoch t (from 1) attacks if t > 1 and t + 2 is a multiple of it.
        adv_epochs: E_adv, how many epochs attack at most; 0 for none.
        adv_lr: learning rate of the tables, above 0.

    Source: AdvInfoNCE, as Talos (WWW 2026) describes it.
    """

    name = "advinfonce"
    title = "AdvInfoNCE"
    per_row = True
    needs = frozenset({"user", "neg_item"})
    user_parameters = ("adv_user",)

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        tau: float = 0.2,
        neg_weight: float = 64.0,
        adv_every: int = 5,
        adv_epochs: int = 30,
        adv_lr: float = 5e-5,
    ) -> None:
        super().__init__()
        require_positive(tau=tau, neg_weight=neg_weight, adv_lr=adv_lr)
        require(isinstance(adv_every, int) and adv_every >= 1, f"adv_every must be at least 1, got {adv_every!r}")
        require(isinstance(adv_epochs, int) and adv_epochs >= 0, f"adv_epochs must be at least 0, got {adv_epochs!r}")
        self.tau, self.neg_weight, self.adv_lr = tau, neg_weight, adv_lr
        self.adv_every, self.adv_epochs = adv_every, adv_epochs
        self.adv_user = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_users, _DIM)))
        self.adv_item = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_items, _DIM)))

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``advinfonce`` over the batch, in both phases."""
        assert batch.user is not None
        assert batch.neg_item is not None
        adv_logits = sampled_scores(F.embedding(batch.user, self.adv_user), self.adv_item, batch.neg_item)
        return advinfonce(batch.pos, batch.neg, adv_logits, self.tau, self.neg_weight).mean()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The tables: ``adv_lr``, ascending, the model's weight decay."""
        return [
            {"name": "adversary", "params": [self.adv_user, self.adv_item], "lr": self.adv_lr, "maximize": True},
        ]

    def passes(self, epoch: int) -> Sequence[Sequence[Phase]]:
        """The ordinary pass, after an attack where one is due."""
        ordinary = [Phase("fit", frozenset({"model"}))]
        due = epoch > 1 and (epoch + 2) % self.adv_every == 0
        earlier = (epoch + 1) // self.adv_every - 3 // self.adv_every  # multiples of T_adv in 4 .. epoch + 1
        if due and earlier < self.adv_epochs:
            return [[Phase("attack", frozenset({"adversary"}))], ordinary]
        return [ordinary]
