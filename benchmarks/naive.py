"""The training step as the published code writes it, in plain eager torch.

Multinomial draws over a dense (B, I) mask of non-positives, a gathered (B, N, d) tensor and `bmm`, eager losses in
exp and log, positives padded to the longest user for the thresholds, autograd's scatter back, dense Adam.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.interactions import Interactions


def softmax_loss(pos: Tensor, neg: Tensor, tau: float = 0.2) -> Tensor:
    return -torch.log(torch.exp(pos / tau) / torch.exp(neg / tau).sum(1))


def pairwise_softmax_loss(pos: Tensor, neg: Tensor, tau: float = 0.1) -> Tensor:
    difference = (neg - pos[:, None]) / 2
    return torch.logsumexp(torch.log(torch.tanh(difference) + 1) / tau, 1)


def softmax_loss_at_k(pos: Tensor, neg: Tensor, beta: Tensor, tau: float = 0.2, tau_weight: float = 2.25) -> Tensor:
    weight = torch.sigmoid((pos - beta) / tau_weight)
    return weight * torch.logsumexp((neg - pos[:, None]) / tau, 1)


def talos_loss(pos: Tensor, neg: Tensor, beta: Tensor, tau: float = 0.1) -> Tensor:
    above = torch.logsumexp(torch.log(torch.sigmoid(neg - beta[:, None])) / tau, 1)
    return above - torch.log(torch.exp(torch.log(torch.sigmoid(pos - beta)) / tau))


class Naive:
    """MF of cosines with one of the four losses, at the losses' defaults.

    Args:
        name: "sl", "psl", "slatk" or "talos".
        train: the training positives.
        n_negatives: N.
        k: the cut-off of the thresholds.
    """

    def __init__(self, name: str, train: Interactions, n_negatives: int, dim: int = 64, k: int = 20) -> None:
        self.name, self.train, self.n, self.k = name, train, n_negatives, k
        self.user = nn.Parameter(torch.randn(train.n_users, dim))
        self.item = nn.Parameter(torch.randn(train.n_items, dim))
        self.beta = nn.Parameter(torch.zeros(train.n_users), requires_grad=name == "talos")
        self.padded = self._padded() if name in ("slatk", "talos") else None
        groups = [{"params": [self.user, self.item], "lr": 0.01}]
        groups += [{"params": [self.beta], "lr": 1e-3}] if name == "talos" else []
        self.optimizer = torch.optim.Adam(groups)

    def _padded(self) -> Tensor:
        """(U, longest) positives, filled up with the item n_items."""
        train = self.train
        padded = torch.full((train.n_users, int(train.degrees.max())), train.n_items)
        padded[train.user, torch.arange(len(train)) - train.offsets[train.user]] = train.item
        return padded

    def negatives(self, users: Tensor) -> Tensor:
        """(B, N) uniform outside the users' positives."""
        allowed = torch.ones(len(users), self.train.n_items)
        positives = self.train.of(users)
        allowed[positives.rows, positives.values] = 0
        return torch.multinomial(allowed, self.n, replacement=True)

    def step(self, users: Tensor, items: Tensor) -> float:
        """One optimiser step."""
        loss = self.loss(users, items, self.negatives(users))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def loss(self, users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
        """Mean over the batch, with Talos's quantile regression."""
        user_table, item_table = F.normalize(self.user, dim=1), F.normalize(self.item, dim=1)
        u, v = user_table[users], item_table[items]
        v_BND = item_table[negatives]
        pos, neg = (u * v).sum(1), torch.bmm(u[:, None], v_BND.transpose(1, 2))[:, 0]
        if self.name == "sl":
            return softmax_loss(pos, neg).mean()
        if self.name == "psl":
            return pairwise_softmax_loss(pos, neg).mean()
        if self.name == "slatk":
            return softmax_loss_at_k(pos, neg, self.beta[users]).mean()
        loss = talos_loss(pos, neg, self.beta.detach()[users]).mean()
        scores, real = self._positive_scores(users, u.detach(), item_table.detach())
        return loss + self._quantile_loss(self.beta[users], scores, real, neg.detach())

    def _positive_scores(self, users: Tensor, u: Tensor, item_table: Tensor) -> tuple[Tensor, Tensor]:
        """(B, longest) scores of the padded positives, and which are real."""
        padded = self.padded[users]
        with_padding = torch.cat([item_table, item_table.new_zeros(1, item_table.shape[1])])
        return torch.bmm(u[:, None], with_padding[padded].transpose(1, 2))[:, 0], padded != self.train.n_items

    def _quantile_loss(self, beta: Tensor, scores: Tensor, real: Tensor, neg: Tensor) -> Tensor:
        n_items, share = self.train.n_items, self.k / self.train.n_items

        def pinball(x: Tensor) -> Tensor:
            return (1 - share) * torch.relu(x) + share * torch.relu(-x)

        weight = (n_items - real.sum(1)) / neg.shape[1]
        of_pos, of_neg = pinball(scores - beta[:, None]) * real, pinball(neg - beta[:, None])
        return (torch.cat([of_pos, weight[:, None] * of_neg], 1).sum(1) / n_items).mean()

    @torch.no_grad()
    def refresh(self, users: Tensor, negatives: Tensor | None = None) -> None:
        """SL@K's thresholds of a block of users: K-th largest of all positives and N fresh negatives."""
        user_table, item_table = F.normalize(self.user, dim=1), F.normalize(self.item, dim=1)
        u = user_table[users]
        scores, real = self._positive_scores(users, u, item_table)
        v_BND = item_table[self.negatives(users) if negatives is None else negatives]
        neg = torch.bmm(u[:, None], v_BND.transpose(1, 2))[:, 0]
        candidates = torch.cat([scores.masked_fill(~real, -torch.inf), neg], 1)
        self.beta[users] = candidates.topk(self.k, 1).values[:, -1]
