"""The division of users and rows among ranks, and what is declared as having a row per user."""

import pytest
import torch
import torch.nn.functional as F

from recloss import backbones, losses
from recloss.backbones import BACKBONES
from recloss.interactions import Interactions
from recloss.parallel import Shard, user_parameters


def made(degrees: list[int], n_items: int = 50) -> Interactions:
    user = torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees))
    item = torch.cat([torch.arange(n) for n in degrees])
    return Interactions(user, item, len(degrees), n_items)


DEGREES = [[3, 1, 2, 5, 4, 1], [0, 0, 7, 7, 0, 1, 0], [2, 2, 40, 2], [40, 1, 1], [1, 1, 40], [5]]


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_user_has_one_owner_and_the_pairs_are_divided(degrees, world):
    train = made(degrees)
    shards = [Shard(train, rank, world) for rank in range(world)]
    users = torch.arange(train.n_users)
    assert torch.equal(torch.cat([users[shard.users] for shard in shards]), users)
    for shard in shards:
        assert sum(degrees[shard.users]) < len(train) / world + max(degrees) + 1


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize(("world", "size"), [(1, 4), (2, 1), (2, 4), (3, 5), (3, 1000)])
def test_the_rows_of_all_ranks_are_the_batch(degrees, world, size):
    train = made(degrees)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    shards = [Shard(train, rank, world) for rank in range(world)]
    batches = [(train.user[pairs], train.item[pairs]) for pairs in order.split(size)]
    batches = zip(*(shard.rows(batches) for shard in shards), strict=True)
    start = 0
    for ranks in batches:
        whole = order[start : start + size]
        seen = torch.zeros(len(whole), dtype=torch.int64)
        for rows, shard in zip(ranks, shards, strict=True):
            assert torch.equal(rows.batch_users, train.user[whole])
            assert torch.equal(rows.batch_items, train.item[whole])
            assert rows.start == start
            assert len(rows.users), "a rank without rows computes one with weight 0"
            assert torch.equal(train.user[order[rows.positions]], rows.users)
            assert torch.equal(train.item[order[rows.positions]], rows.items)
            _check_pieces(rows)
            if rows.share:
                assert rows.share == len(rows.users) / len(whole)
                assert bool((rows.positions.diff() > 0).all()), "in the order of the batch"
                assert all(shard.users.start <= u < shard.users.stop for u in rows.users.tolist())
                seen[rows.positions - start] += 1
        assert bool((seen == 1).all())
        assert sum(rows.share for rows in ranks) == pytest.approx(1)
        start += len(whole)
    assert start == len(order)


def _check_pieces(rows):
    """The pieces of a rank's rows, one after the other, are the rows."""
    for size in (1, 3, 1000):
        pieces = list(rows.pieces(size))
        for name in ("positions", "users", "items"):
            assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(rows, name))
        assert sum(piece.share for piece in pieces) == pytest.approx(rows.share)
        assert all(len(piece.users) <= size and piece.batch_items is rows.batch_items for piece in pieces)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_declares_the_parameters_whose_rows_move_by_their_users_rows_alone(name):
    train = made([3, 1, 2, 5, 4, 1], 9)
    backbone = backbones.build(name, {"dim": 4}, train, 0)
    users = torch.tensor([1, 3])
    user_table, item_table = backbone.embed()
    (F.embedding(users, user_table) @ item_table.T).square().sum().backward()
    others = torch.tensor([0, 2, 4, 5])
    alone = [p for p in backbone.parameters() if len(p) == 6 and p.grad is not None and not p.grad[others].any()]
    assert list(user_parameters(backbone)) == alone
    assert set(user_parameters(backbone).values()) == {f"{type(backbone).__name__}.user" for _ in alone}
    assert bool(alone) == (name not in {"lightgcn", "xsimgcl"})


def test_the_parameters_of_a_losss_parts_are_found():
    sizes = {"n_users": 6, "n_items": 20, "n_pairs": 16, "n_negatives": 3}
    declared = {
        loss: list(user_parameters(losses.build(loss, {}, **sizes, seed=0)).values())
        for loss in ("sl", "talos", "advinfonce", "slatk")
    }
    assert declared == {
        "sl": [], "talos": ["RegressionThreshold.value"], "advinfonce": ["AdvInfoNCE.adv_user"], "slatk": []
    }  # fmt: skip
