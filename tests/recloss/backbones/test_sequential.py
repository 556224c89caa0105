"""What every backbone over histories keeps: padding, causality, rows, the bias, and the loop it shares with pairs."""

import shutil
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp

from recloss import backbones, losses
from recloss.backbones import MF, SEQUENCE_BACKBONES, SequenceBackbone
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.losses import LOSSES
from recloss.sequences import Sequences, Windows
from recloss.soft_labels import propagate
from recloss.training import FitSettings, fit

N_ITEMS, LENGTH = 12, 6
every_backbone = pytest.mark.parametrize("name", SEQUENCE_BACKBONES)


def planted(n_users: int = 30) -> tuple[Sequences, Sequences, Sequences]:
    """Users walk the ring of items by steps of one from where they start; the last two are held out."""
    lists = [[(start + t) % N_ITEMS for t in range(4 + start % 7)] for start in range(n_users)]
    lists[3] = [3, 4, 3, 4, 3, 4, 3]
    parts = [[items[:-2] for items in lists], [items[-2:-1] for items in lists], [items[-1:] for items in lists]]
    return tuple(  # type: ignore[return-value]
        Sequences(
            torch.tensor([item for items in part for item in items]),
            torch.tensor([0, *map(len, part)]).cumsum(0),
            N_ITEMS,
        )
        for part in parts
    )


TRAIN, VALID, TEST = planted()
SIZES = {"n_users": TRAIN.n_users, "n_items": N_ITEMS, "n_negatives": 8}
SETTINGS = FitSettings(
    lr=0.01, epochs=4, batch_size=8, negatives=8, valid_every=2, patience=9, metric="ndcg_5", cutoffs=(5,), seed=3
)


def made(name: str, seed: int = 0, **params) -> SequenceBackbone:
    return backbones.build_sequential(name, {"dim": 8, "length": LENGTH} | params, TRAIN, seed)


def histories(*lists: list[int], width: int) -> torch.Tensor:
    return torch.tensor([[N_ITEMS] * (width - len(items)) + items for items in lists])


@every_backbone
def test_padding_on_the_left_changes_nothing(name):
    backbone = made(name).eval().double()
    items = [3, 1, 4]
    bare, padded = (backbone.states(histories(items, width=width)) for width in (3, LENGTH))
    torch.testing.assert_close(padded[:, -3:], bare, rtol=1e-12, atol=1e-14)
    beside = backbone.states(histories(items, [5, 2, 0, 7, 7, 1], width=LENGTH))
    torch.testing.assert_close(beside[:1, -3:], bare, rtol=1e-12, atol=1e-14)
    for width in (3, LENGTH):
        history = histories(items, width=width)
        torch.testing.assert_close(backbone.last(history), bare[:, -1], rtol=1e-12, atol=1e-14)


@every_backbone
def test_a_state_sees_nothing_later_and_all_that_came_before(name):
    backbone = made(name).eval().double()
    history = histories([3, 1, 4, 1, 5], width=5)
    states = backbone.states(history)
    assert states.shape == (1, 5, 8)
    for place in range(5):
        other = history.clone()
        other[0, place] = 9
        moved = (backbone.states(other) - states).abs().amax(2)[0]
        assert bool((moved[:place] == 0).all())
        assert bool((moved[place:] > 1e-9).all())


@every_backbone
def test_only_the_last_items_of_a_history_are_read(name):
    backbone = made(name).eval()
    long = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [11, 11, 11, 3, 4, 5, 6, 7, 8]]
    both = Sequences(torch.tensor([*long[0], *long[1]]), torch.tensor([0, 9, 18]), N_ITEMS)
    with backbone.reading(both):
        user, _ = backbone.embed()
    assert torch.equal(user[0], user[1])


@every_backbone
def test_padding_is_no_item_and_has_no_gradient(name):
    for output in ("tied", "table", "linear"):
        backbone = made(name, output=output)
        user, item = backbone.embed()
        assert item.shape == (N_ITEMS, 8 + (output == "linear"))
        assert not backbone.item[-1].any()
        (user @ item.T).square().sum().backward()
        assert not backbone.item.grad[-1].any()
        assert backbone.item.grad[:-1].any()


@every_backbone
def test_the_rows_of_windows_are_states_of_the_histories_before_them(name):
    backbone = made(name).eval().double()
    for positions in ("sliding", "last", "all"):
        users, _, windows = Windows(TRAIN, positions=positions, length=LENGTH, batch_size=1, seed=0).rows()
        states, own, scored = backbone.rows(users, windows)
        assert torch.equal(scored, backbone.embed()[1])
        for row in range(0, len(users), 4):
            place, end = windows[row].tolist()
            items = TRAIN.items[TRAIN.offsets[users[row]] :].tolist()
            window = histories(items[:end][-LENGTH:], width=LENGTH)
            expected = backbone.states(window)[0, LENGTH - 1 - (end - place)]
            torch.testing.assert_close(states[own[row], :8], expected, rtol=1e-12, atol=1e-14)
            if name != "sasrec" and end <= LENGTH:  # whose positions count from the end of the window
                alone = backbone.last(histories(items[:place], width=LENGTH))[0]
                torch.testing.assert_close(states[own[row], :8], alone, rtol=1e-12, atol=1e-14)


@every_backbone
@pytest.mark.parametrize("positions", ["all", "last"])
def test_histories_of_all_lengths_beside_each_other_give_what_each_gives_alone(name, positions):
    draw = torch.Generator().manual_seed(5)
    lengths = torch.tensor([40, 1, 9, 0, 3, 17, 8, 33, 2, 16, 7, 25, 12, 31, 5, 18])
    items = torch.randint(N_ITEMS, (int(lengths.sum()),), generator=draw)
    sequences = Sequences(items, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), N_ITEMS)
    backbone = backbones.build_sequential(name, {"dim": 8, "length": 20}, sequences, 0).eval().double()
    users, _, windows = Windows(sequences, positions=positions, length=20, batch_size=1, seed=0).rows()
    order = torch.randperm(len(users), generator=draw)
    users, windows = users[order], windows[order]
    together, _, _ = backbone.rows(users, windows)
    alone = [backbone.rows(users[row : row + 1], windows[row : row + 1])[0] for row in range(len(users))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-14)
    embedded, _ = backbone.embed()
    for user, length in enumerate(lengths.tolist()):
        own = sequences.items[sequences.offsets[user] :][:length][-20:].tolist()
        expected = backbone.last(histories(own, width=max(1, len(own))))[0]
        torch.testing.assert_close(embedded[user, :8], expected, rtol=1e-12, atol=1e-14)


@every_backbone
def test_a_user_in_evaluation_is_the_state_after_the_whole_history(name):
    backbone = made(name).eval().double()
    whole = TRAIN.followed_by(VALID)
    for sequences in (TRAIN, whole):
        with backbone.reading(sequences):
            user, _ = backbone.embed()
        for u in range(0, TRAIN.n_users, 3):
            items = sequences.items[sequences.offsets[u] : sequences.offsets[u + 1]].tolist()[-LENGTH:]
            expected = backbone.last(histories(items, width=LENGTH))[0]
            torch.testing.assert_close(user[u, :8], expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(backbone.histories.items, TRAIN.items), "it reads the training sequences again"


@every_backbone
def test_the_bias_is_added_to_dot_products(name):
    backbone = made(name, output="linear").eval().double()
    user, item = backbone.embed()
    ends = TRAIN.lengths
    states = backbone.last(TRAIN.windows(torch.arange(TRAIN.n_users), ends, LENGTH))
    weight, bias = backbone.output[:, :8], backbone.output[:, 8]
    torch.testing.assert_close(user @ item.T, torch.nn.functional.linear(states, weight, bias), rtol=1e-12, atol=1e-12)


@every_backbone
def test_a_user_without_history_has_a_state(name):
    backbone = made(name).eval()
    with backbone.reading(Sequences(torch.tensor([1]), torch.tensor([0, 0, 1, 1]), N_ITEMS)):
        user, _ = backbone.embed()
    assert bool(user.isfinite().all())
    assert torch.equal(user[0], user[2])
    assert not torch.equal(user[0], user[1])


def loss_of(name: str, seed: int = 0, **params) -> losses.Loss:
    params |= {"k": 5} if "k" in LOSSES[name].__init__.__annotations__ else {}
    return losses.build(name, params, **SIZES, n_pairs=len(TRAIN.interactions()), seed=seed)


def trained(backbone, loss, *, positions="all", settings=SETTINGS, **options):
    train, valid = TRAIN.interactions(), VALID.interactions()
    windows = Windows(TRAIN, positions=positions, length=LENGTH, batch_size=settings.batch_size, seed=settings.seed)
    if "soft_targets" in loss.needs:
        users, items, _ = windows.rows()
        vectors = torch.randn(len(users), 3, generator=torch.Generator().manual_seed(0))
        labels = propagate(vectors, items, users % 3, tau=1.0)
        options["soft_labels"] = labels.placed(train.places(users, items), len(train))
    return fit(backbone, loss, train, valid, settings, positives=windows, hidden=train.without(valid), **options)


USUAL = ("bce", "sl", "psl", "ccl", "drrl", "talos", "desorec")
"""The losses that are tried by default; the others take minutes."""


@pytest.mark.filterwarnings("ignore:.*is for cosines")
@pytest.mark.parametrize(
    "loss", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in LOSSES]
)
def test_every_loss_learns_which_item_follows(loss):
    """The loop and the loss are those of pairs."""
    backbone = made("gru4rec", layers=1, dim=16, dropout=0.0, output="table", init="normal")
    settings = replace(SETTINGS, epochs=15, valid_every=15, lr=0.03)
    result = trained(backbone, loss_of(loss), settings=settings)
    assert result.history[-1].metrics["ndcg_5"] > 0.6, "one that knows nothing reaches about 0.35"


@every_backbone
@pytest.mark.parametrize("positions", ["all", "last"])
def test_every_backbone_learns_which_item_follows(name, positions):
    options = {"dropout": 0.1} if name != "youtubednn" else {}
    backbone = made(name, dim=16, init="normal", **options, **({"layers": 1} if name == "gru4rec" else {}))
    settings = replace(SETTINGS, epochs=40, valid_every=40, lr=0.02)
    result = trained(backbone, losses.LabelSmoothing(smoothing=0), settings=settings, positions=positions)
    assert result.best > 0.6


def test_one_epoch_equals_the_steps_written_by_hand():
    """SASRec with BCE at all positions, without dropout, in a plain loop."""
    backbone, by_hand = (made("sasrec", dropout=0.0) for _ in range(2))
    settings = replace(SETTINGS, epochs=1, valid_every=1, batch_size=100, weight_decay=0.01)
    trained(backbone, losses.SL(tau=0.2, over="all"), settings=settings)

    optimizer = torch.optim.Adam(by_hand.parameters(), lr=settings.lr, weight_decay=0.01)
    terms = []
    for user in range(TRAIN.n_users):
        items = TRAIN.items[TRAIN.offsets[user] : TRAIN.offsets[user + 1]][-LENGTH - 1 :]
        if len(items) < 2:
            continue
        states = by_hand.states(items[None, :-1])[0]
        cosines = (
            torch.nn.functional.normalize(states, dim=1) @ torch.nn.functional.normalize(by_hand.item[:-1], dim=1).T
        )
        own = cosines.gather(1, items[1:, None])
        others = cosines.scatter(1, items[1:, None], -torch.inf)
        terms.append(((others - own) / 0.2).logsumexp(1))
    torch.cat(terms).mean().backward()
    optimizer.step()
    for (key, left), (_, right) in zip(backbone.state_dict().items(), by_hand.state_dict().items(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize("loss", ["talos", "slatk", "songatk", "desorec"])
def test_dropout_is_replayed_and_a_resumed_run_is_the_uninterrupted_one_to_the_bit(loss, tmp_path):
    file, copy = tmp_path / "checkpoint.pt", tmp_path / "copy.pt"

    def pair():
        return made("sasrec", dropout=0.5), loss_of(loss)

    whole, again, resumed = pair(), pair(), pair()
    trained(*whole, checkpoint=file, on_validation=lambda v: shutil.copy(file, copy) if v.epoch == 2 else None)
    torch.manual_seed(99)
    trained(*again)
    trained(*resumed, checkpoint=copy)
    for other in (again, resumed):
        for left, right in zip(other, whole, strict=True):
            for (key, x), (_, y) in zip(left.state_dict().items(), right.state_dict().items(), strict=True):
                assert torch.equal(x, y), key


def test_micro_batches_train_the_same_model():
    whole, pieces = (made("sasrec", dropout=0.0).double() for _ in range(2))
    trained(whole, losses.SL(tau=0.2))
    trained(pieces, losses.SL(tau=0.2), micro_batch=5)
    for x, y in zip(whole.state_dict().values(), pieces.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9)


def _rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", world_size=world, rank=rank)
    backbone = made("sasrec", dropout=0.0).double()
    trained(backbone, loss_of("talos").double())
    torch.save(backbone.state_dict(), folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_train_the_model_of_one(tmp_path):
    mp.spawn(_rank, (2, tmp_path), nprocs=2)
    alone = made("sasrec", dropout=0.0).double()
    trained(alone, loss_of("talos").double())
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key, value in alone.state_dict().items():
        assert torch.equal(ranks[0][key], ranks[1][key])
        torch.testing.assert_close(ranks[0][key], value, rtol=1e-4, atol=1e-6)


def test_a_test_reads_the_history_up_to_it_and_hides_all_of_it_but_the_answer():
    backbone = made("gru4rec").eval()
    train, valid, test = (part.interactions() for part in (TRAIN, VALID, TEST))
    assert bool(train.contains(test.user, test.item).any()), "an item that comes again"
    whole = TRAIN.followed_by(VALID)
    with backbone.reading(whole):
        found = evaluate(backbone, "dot", test, [train.without(test), valid.without(test)], (5,)).values["ndcg_5"]
        scores = (backbone.embed()[0] @ backbone.embed()[1].T).detach()
    for user in range(TRAIN.n_users):
        answer = int(TEST.items[user])
        seen = set(whole.items[whole.offsets[user] : whole.offsets[user + 1]].tolist()) - {answer}
        rank = 1 + sum(float(scores[user, j]) > float(scores[user, answer]) for j in range(N_ITEMS) if j not in seen)
        expected = 1 / torch.log2(torch.tensor(1.0 + rank)) if rank <= 5 else 0
        assert float(found[user]) == pytest.approx(float(expected))


def test_pairs_left_out_are_those_of_others():
    train = Interactions(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1]), 2, 3)
    left = train.without(Interactions(torch.tensor([0, 1]), torch.tensor([2, 0]), 2, 3))
    assert left.user.tolist() == [0, 1]
    assert left.item.tolist() == [1, 1]


def test_training_without_windows_is_refused_and_pairs_ignore_them():
    with pytest.raises(ValueError, match=r"^SASRec is trained on windows of sequences: pass fit"):
        fit(made("sasrec"), losses.SL(), TRAIN.interactions(), VALID.interactions(), SETTINGS)
    result = trained(MF(TRAIN.n_users, N_ITEMS, dim=8), losses.SL())
    assert len(result.history) == 2


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sasrec", {"output": "shared"}, "output must be one of tied, table, linear, got 'shared'"),
        ("gru4rec", {"length": 0}, "length must be at least 1, got 0"),
        ("gru4rec", {"layers": 0}, "layers must be at least 1, got 0"),
        ("gru4rec", {"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ("deepfm", {"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ("sasrec", {"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ("sasrec", {"blocks": 0}, "blocks must be at least 1, got 0"),
        ("sasrec", {"heads": 3}, r"heads must divide dim \(8\), got 3"),
        ("youtubednn", {"init": "ones"}, "init must be one of"),
    ],
)
def test_hyper_parameters_out_of_range_are_named(name, params, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        made(name, **params)
