"""What backbones over a user's history have in common."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.backbones.base import Backbone, embedding_table
from recloss.errors import require, require_one_of
from recloss.sequences import Sequences

_USERS_PER_BLOCK = 512

Output = Literal["tied", "table", "linear"]


class SequenceBackbone(Backbone):
    """Base of the backbones whose user is a function of the items the user had, the last ``length`` of them.

    It trains by `recloss.training.fit` with ``positives=`` `recloss.sequences.Windows`. In evaluation a user's state is
    that after the whole training history, or after the histories that ``reading`` gives.

    The items that are scored have the embeddings of the history ("tied"), a table of their own ("table"), or one with a
    bias ("linear"). A bias is a coordinate of the item's embedding, for which every user has 1: so a dot product
    includes it wherever there is one, in training and in evaluation. With cosines, take one of the other two.

    Padding is an embedding of zeros that is no item and has no score. Histories are padded to the longest of those of
    about their length in a batch, so what a user's state is depends on the padding by rounding alone.

    With dropout, which draws from torch's global generator, the number of ranks is part of the run: each rank draws for
    its own rows.

    Args:
        histories: the training sequences.
        dim: embedding dimension d.
        length: items of a history that are read, the last ones.
        init: of the embeddings of the history and of a "table": "normal", "xavier_normal" or "xavier_uniform".
        output: "tied", "table" or "linear", which starts as torch's linear layers do.

    Raises:
        ValueError: for a hyper-parameter out of range.
    """

    _items: Tensor
    _offsets: Tensor

    def __init__(self, histories: Sequences, *, dim: int, length: int, init: str, output: Output) -> None:
        super().__init__()
        require_one_of("output", output, get_args(Output))
        require(length >= 1, f"length must be at least 1, got {length!r}")
        self.n_items, self.dim, self.length = histories.n_items, dim, length
        table = embedding_table(self.n_items + 1, dim, init)
        table.data[-1] = 0
        self.item = table
        if output == "table":
            self.output = embedding_table(self.n_items, dim, init)
        elif output == "linear":
            bound = dim**-0.5
            self.output = nn.Parameter(torch.empty(self.n_items, dim + 1).uniform_(-bound, bound))
        else:
            self.register_parameter("output", None)
        self.register_buffer("_items", histories.items, persistent=False)
        self.register_buffer("_offsets", histories.offsets, persistent=False)

    @property
    def histories(self) -> Sequences:
        """The sequences it reads."""
        return Sequences.from_arrays(self._items, self._offsets, self.n_items)

    @contextmanager
    def reading(self, histories: Sequences) -> Iterator[None]:
        """Users are those of other ``histories``, such as training and validation's for a test."""
        kept = self._items, self._offsets
        self._items, self._offsets = histories.items.to(kept[0].device), histories.offsets.to(kept[1].device)
        try:
            yield
        finally:
            self._items, self._offsets = kept

    @abstractmethod
    def states(self, history: Tensor) -> Tensor:
        """(B, L, d) state after each item of ``history`` (B, L), which sees nothing later; L at most ``length``.

        What it is at padding means nothing, except in the last column: the state of a user without history.
        """

    def last(self, history: Tensor) -> Tensor:
        """(B, d) state after the whole of ``history`` (B, L)."""
        return self.states(history)[:, -1]

    def vectors(self, users: Tensor, windows: Tensor) -> Tensor:
        """(B, d) states of rows, before any output layer: what comes before their places (see ``rows``)."""
        places, ends = windows.unbind(1)
        if bool((places == ends).all()):
            return self._last(users, ends)
        n = int(ends.max()) + 1
        keys, window = (users * n + ends).unique(return_inverse=True)
        states, last, start = [], torch.empty_like(keys), -1
        for some in _of_like_length(keys % n, self.length):
            history = self._windows(keys[some] // n, keys[some] % n)
            states.append(self.states(history).flatten(0, 1))
            last[some] = start + history.shape[1] * torch.arange(1, len(some) + 1, device=some.device)
            start += history.numel()
        return torch.cat(states).index_select(0, last[window] - (ends - places))

    def rows(self, users: Tensor, windows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The state of each row before its place, and the items that are scored.

        Raises:
            ValueError: without ``windows``.
        """
        if windows is None:
            raise ValueError(
                f"{self.title} is trained on windows of sequences: pass fit(..., positives=Windows(...)) of "
                "recloss.sequences"
            )
        states = self._scoring(self.vectors(users, windows))
        return states, torch.arange(len(users), device=users.device), self._scored()

    def embed(self) -> tuple[Tensor, Tensor]:
        """Users after their whole history, in blocks, and the items that are scored."""
        histories = self.histories
        users = torch.arange(histories.n_users, device=self._offsets.device)
        blocks = zip(users.split(_USERS_PER_BLOCK), histories.lengths.split(_USERS_PER_BLOCK), strict=True)
        states = [self._last(block, ends) for block, ends in blocks]
        return self._scoring(torch.cat(states)), self._scored()

    def history_embeddings(self, history: Tensor) -> Tensor:
        """(B, L, d) embeddings of ``history``, zeros for padding."""
        return F.embedding(history, self.item, padding_idx=self.n_items)

    def _last(self, users: Tensor, ends: Tensor) -> Tensor:
        """(B, d) states of ``users`` (B,) before place ``ends`` (B,)."""
        groups = _of_like_length(ends, self.length)
        states = [self.last(self._windows(users[some], ends[some])) for some in groups]
        return torch.cat(states)[torch.cat(groups).argsort()]

    def _windows(self, users: Tensor, ends: Tensor) -> Tensor:
        return self.histories.windows(users, ends, min(self.length, max(1, int(ends.max()))))

    def _scoring(self, states: Tensor) -> Tensor:
        biased = self.output is not None and self.output.shape[1] > self.dim
        return F.pad(states, (0, 1), value=1.0) if biased else states

    def _scored(self) -> Tensor:
        return self.item[: self.n_items] if self.output is None else self.output


def _of_like_length(ends: Tensor, longest: int) -> list[Tensor]:
    """Places in ``ends`` (B,) of histories of up to 7, 15, 31, ... items: together, few of them are padding."""
    size = torch.frexp(ends.clamp(max=longest).to(torch.float32)).exponent.clamp_(min=3)
    return [(size == one).nonzero().flatten() for one in size.unique()]
