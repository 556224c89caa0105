"""The served ranking is the evaluation's: order, ties, hidden items; what happens at its edges."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines import references
from pipelines.prepare import load
from pipelines.tracking.served import Ranking, best_columns
from pipelines.train import mapped
from pipelines.train.folder import MODEL
from recloss.checkpoints import load_checkpoint
from recloss.evaluation import _top, evaluate
from recloss.ties import item_order

ROOT = Path(__file__).parents[3]


@given(
    st.lists(st.lists(st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 1.0]), min_size=7, max_size=7), min_size=1),
    st.integers(1, 7),
)
def test_best_columns_are_the_best_in_order_and_equal_ones_by_column(rows, k):
    expected = [sorted(range(7), key=lambda column: (-row[column], column))[:k] for row in rows]
    assert best_columns(np.array(rows, np.float32), k).tolist() == expected


def ids(data: Path, side: str) -> list[str]:
    return pq.read_table(data / f"{side}.parquet")["id"].to_pylist()


def evaluated(scores: torch.Tensor, data: Path, hidden: list[str], k: int) -> list[list[str]]:
    """Top ids of every user, by the evaluation's own ranking of (U, I) scores."""
    fingerprint, order, items = load(data).fingerprint, item_order(scores.shape[1]), ids(data, "items")
    scores = scores.clone()
    for split in hidden:
        pairs = mapped.interactions(data, fingerprint, split)
        scores[pairs.user, pairs.item] = -torch.inf
    scores = scores[:, order]
    top = _top(scores, k)
    kept = scores.gather(1, top) > -torch.inf
    return [[items[order[c]] for c, fine in zip(*row, strict=True) if fine] for row in zip(top, kept, strict=True)]


def lists(top) -> dict[str, list[str]]:
    return top.groupby("user", sort=False)["item"].agg(list).to_dict()


@pytest.mark.parametrize(("backbone", "loss"), [("mf", "sl"), ("mf", "bpr"), ("lightgcn", "sl"), ("simplex", "ccl")])
def test_the_ranking_is_the_evaluation_s(backbone, loss, serve, prepared, a_trial):
    ranking = serve(trial := a_trial(backbone, loss))
    top = lists(ranking.recommend(ids(prepared, "users"), 5))
    test = mapped.interactions(prepared, trial.data, "test")
    trained, items = mapped.interactions(prepared, trial.data, "train"), ids(prepared, "items")

    class Served(torch.nn.Module):
        def embed(self):
            order = np.argsort(ranking.item_index)
            return torch.tensor(ranking.scores.users), torch.tensor(ranking.scores.items[order])

    measured = evaluate(Served(), "dot", test, [trained], [5])
    recall = []
    for user, id_ in enumerate(ids(prepared, "users")):
        relevant = {items[i] for i in test.item[test.user == user].tolist()}
        if relevant:
            recall.append(len(relevant & set(top[id_])) / len(relevant))
    torch.testing.assert_close(measured.values["recall_5"], torch.tensor(recall, dtype=torch.float64))
    users, own = (torch.from_numpy(np.array(e)) for e in (ranking.scores.users, ranking.scores.items))
    scores = torch.empty(len(users), len(own))
    scores[:, torch.from_numpy(np.array(ranking.item_index))] = users @ own.T
    assert list(top.values()) == evaluated(scores, prepared, ["train"], 5)


def test_the_scores_of_a_cosine_model_are_cosines_of_the_trained_embeddings(serve, prepared, folder_of, a_trial):
    ranking = serve(trial := a_trial())
    state = load_checkpoint(folder_of(trial) / "model.pt")["backbone"]
    cosine = torch.nn.functional.cosine_similarity(state["user"][:, None], state["item"][None], dim=2)
    items = ids(prepared, "items")
    for row in ranking.recommend(ids(prepared, "users")[:7], 40, hide_seen=False).itertuples():
        expected = cosine[ids(prepared, "users").index(row.user), items.index(row.item)]
        assert row.score == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"), [("mostpop", {}), ("ease", {}), ("ials", {"factors": 4}), ("itemknn", {})]
)
def test_references_rank_as_they_were_evaluated(name, settings, serve, prepared, folder_of, a_reference):
    ranking = serve(trial := a_reference(name, **settings))
    trained = mapped.interactions(prepared, trial.data, "train")
    state = load_checkpoint(folder_of(trial) / MODEL)["reference"]
    fitted = references.build(trial.loss.name, trial.loss.params).scorer(trained, state)
    scores = fitted(torch.arange(trained.n_users)).float()
    top = ranking.recommend(ids(prepared, "users"), 6)
    assert list(lists(top).values()) == evaluated(scores, prepared, ["train"], 6)
    users, items = ids(prepared, "users"), ids(prepared, "items")
    expected = [float(scores[users.index(row.user), items.index(row.item)]) for row in top.itertuples()]
    np.testing.assert_allclose(top["score"], expected, rtol=1e-5)


def test_ties_are_in_the_evaluation_s_order(serve, prepared, tmp_path, a_trial):
    serve(a_trial())
    rng = np.random.default_rng(0)
    for side, rows in (("user", 60), ("item", 40)):  # products of small integers are exact and often equal
        np.save(tmp_path / "ranking" / f"{side}_embeddings.npy", rng.integers(0, 2, (rows, 3)).astype(np.float32))
    ranking = Ranking(tmp_path / "ranking")
    scores = torch.empty(60, 40)
    scores[:, torch.from_numpy(np.array(ranking.item_index))] = torch.tensor(ranking.scores(np.arange(60)))
    assert len(scores.unique()) < 5
    for k in (1, 3, 20, 40):
        top = lists(ranking.recommend(ids(prepared, "users"), k))
        assert list(top.values()) == evaluated(scores, prepared, ["train"], k)


def test_seen_items_are_hidden_unless_they_are_asked_for(serve, prepared, a_trial):
    ranking = serve(a_trial())
    users, items = ids(prepared, "users"), ids(prepared, "items")
    user, item = load(prepared).train
    seen = {users[u]: {items[i] for i in item[user == u]} for u in range(60)}
    hidden = lists(ranking.recommend(users, 40))
    assert hidden.keys() == set(users)
    for id_, found in hidden.items():
        assert set(found) == set(items) - seen[id_], "all that is left, and no more"
    shown = lists(ranking.recommend(users, 40, hide_seen=False))
    assert all(sorted(found) == sorted(items) for found in shown.values())


def test_validation_items_are_hidden_where_the_protocol_hides_them(serve, prepared, a_trial):
    ranking = serve(a_trial(protocol__mask_valid=True))
    users, items = ids(prepared, "users"), ids(prepared, "items")
    seen = {
        (users[u], items[i])
        for part in (load(prepared).train, load(prepared).valid)
        for u, i in zip(*part, strict=True)
    }
    top = ranking.recommend(users, 40)
    everything = {(user, item) for user in users for item in items}
    assert set(zip(top["user"], top["item"], strict=True)) == everything - seen


def test_an_unknown_user_gets_the_most_popular_items(serve, prepared, a_trial):
    ranking = serve(a_trial())
    _, item = load(prepared).train
    counts = np.bincount(item, minlength=40)
    expected = sorted(item_order(40).tolist(), key=lambda i: -counts[i])[:7]
    top = ranking.recommend(["nobody", "u1", None], 7)
    assert top["fallback"].tolist() == [True] * 7 + [False] * 7 + [True] * 7
    for id_ in ("nobody", "None"):
        own = top[top["user"] == id_]
        assert own["item"].tolist() == [ids(prepared, "items")[i] for i in expected]
        assert own["score"].tolist() == [counts[i] for i in expected]
        assert own["rank"].tolist() == list(range(1, 8))


def test_users_are_answered_in_their_order_even_twice(serve, prepared, a_trial):
    ranking = serve(a_trial())
    top = ranking.recommend(["u3", "x", "u1", "u3"], 2)
    assert top["user"].tolist() == ["u3", "u3", "x", "x", "u1", "u1", "u3", "u3"]
    assert top["item"].tolist()[:2] == top["item"].tolist()[6:]


def test_no_users_no_rows(serve, prepared, a_trial):
    top = serve(a_trial()).recommend([], 2)
    assert list(top.columns) == ["user", "item", "rank", "score", "fallback"]
    assert len(top) == 0


def test_integers_are_ids_too(prepared, serve, tmp_path, a_trial):
    serve(a_trial())
    table = pq.read_table(tmp_path / "ranking" / "users.parquet")
    pq.write_table(table.set_column(0, "id", [[str(i) for i in range(60)]]), tmp_path / "ranking" / "users.parquet")
    ranking = Ranking(tmp_path / "ranking")
    expected = ranking.recommend(["7", "12"], 3)
    for given_ in ([7, 12], [7.0, np.float64(12)], [np.int64(7), np.int32(12)]):
        assert ranking.recommend(given_, 3).equals(expected)
    assert ranking.recommend([7.5], 1)["fallback"].all()


@pytest.mark.parametrize("k", [0, -1, 41])
def test_a_k_beyond_the_catalogue_is_refused(k, serve, prepared, a_trial):
    with pytest.raises(ValueError, match=rf"k must lie in 1\.\.40 \(the catalogue\), got {k}"):
        serve(a_trial()).recommend(["u1"], k)


def test_large_requests_are_scored_in_blocks(serve, prepared, monkeypatch, a_trial):
    ranking = serve(a_trial())
    users = ids(prepared, "users")
    whole = ranking.recommend(users, 5)
    monkeypatch.setattr("pipelines.tracking.served._SCORES_AT_ONCE", 40 * 7)
    blocks = ranking.recommend(users, 5)
    assert blocks[["user", "item", "rank"]].equals(whole[["user", "item", "rank"]])
    np.testing.assert_allclose(blocks["score"], whole["score"], rtol=1e-6)


def damage(folder: Path, what: str) -> None:
    about = json.loads((folder / "ranking.json").read_text())
    if what == "format":
        about["format"] = 2
    if what == "kind":
        about["kind"] = "../oracle"
    if what == "users":
        about["users"] = 61
    (folder / "ranking.json").write_text(json.dumps(about))
    if what == "objects":
        np.save(folder / "item_embeddings.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("what", ["format", "kind", "users", "objects"])
def test_a_damaged_folder_is_refused(what, serve, prepared, tmp_path, a_trial):
    serve(a_trial())
    damage(tmp_path / "ranking", what)
    with pytest.raises(ValueError, match=str(tmp_path)):
        Ranking(tmp_path / "ranking")


def test_the_code_of_a_served_model_needs_no_recloss():
    program = f"""
import sys, importlib.abc
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("recloss", "pipelines", "torch", "ray"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import runpy
runpy.run_path({str(ROOT / "pipelines" / "tracking" / "served.py")!r})
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
