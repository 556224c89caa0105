"""`recloss recommend` and `recloss export`: what names a model, what comes out, what a mistake answers."""

import csv
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.commands import run
from pipelines.serving.export import export
from pipelines.serving.register import register_selected
from pipelines.tracking import read_results
from pipelines.tracking.served import Embeddings
from recloss.errors import InputError


def asked(capsys, *arguments) -> str:
    assert run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments) -> str:
    assert run([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


@pytest.fixture
def confirmed(storage):
    """The confirmation of sl on seed 1."""
    (trial,) = [
        t for t in read_results(f"sqlite:///{storage}/mlflow.db", "toy").trials if (t.loss, t.seed) == ("sl", 1)
    ]
    return trial


def test_a_trial_has_five_names(storage, recorded, confirmed, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.serving.register._trial", lambda cell: min(cell.confirmation, key=lambda t: t.seed))
    register_selected(f"sqlite:///{storage}/mlflow.db", "toy", ["toy/mf/sl"], False, [], print)
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    shown = ["recommend", "--users", "u1,u2,nobody", "--k", "4", "--format", "csv"]
    here, away = (
        ["--storage", storage],
        ["--storage", tmp_path / "empty", "--tracking-uri", f"sqlite:///{storage}/mlflow.db"],
    )
    answers = {
        str(name): asked(capsys, *shown, "--run", name, *place)
        for name, place in [
            (confirmed.hash, here),
            (f"{recorded}/toy/{confirmed.hash}", here),
            (confirmed.run_id, away),
            ("toy.toy.mf.sl", away),
            ("toy.toy.mf.sl@selected", away),
            ("models:/toy.toy.mf.sl/1", away),
        ]
    }
    answers["hash, from the artifact store"] = asked(capsys, *shown, "--run", confirmed.hash, *away)
    assert len(set(answers.values())) == 1, answers
    rows = list(csv.DictReader(io.StringIO(next(iter(answers.values())))))
    assert [(row["user"], row["rank"]) for row in rows] == [
        (u, str(r)) for u in ("u1", "u2", "nobody") for r in range(1, 5)
    ]
    assert [row["fallback"] for row in rows] == ["False"] * 8 + ["True"] * 4


def test_a_trial_outside_any_sweep_needs_its_data(folder_of, a_trial, prepared, capsys, tmp_path):
    folder = folder_of(a_trial())
    common = ["recommend", "--run", folder, "--users", "u1", "--k", "2", "--storage", tmp_path]
    said = refused(capsys, *common)
    assert "nothing was recorded there yet; name the prepared dataset with --data" in said
    assert len(json.loads(asked(capsys, *common, "--data", prepared, "--format", "json"))) == 2


def test_the_table_flags_unknown_users_and_shows_ids_as_they_are(storage, confirmed, capsys, tmp_path):
    (tmp_path / "users.txt").write_text("u1\n\n[bold]x\n  u2  \n")
    users = f"@{tmp_path}/users.txt"
    shown = asked(capsys, "recommend", "--run", confirmed.hash, "--users", users, "--k", "1", "--storage", storage)
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["user", "rank", "item", "score"]
    assert [line[0] for line in lines[1:]] == ["u1", "[bold]x", "u2"]
    assert [" ".join(line[4:]) for line in lines[1:]] == ["", "unknown user: most popular", ""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "toy.toy.mf.sl", "--users", "u1"], "unknown registered model 'toy.toy.mf.sl': none is registered"),
        (["--run", "no/where", "--users", "u1"], "no/where: no such folder; expected that of a trial"),
        (["--run", "0123456789abcdef", "--users", "u1"], "no finished trial 0123456789abcdef in"),
        (["--run", "0123456789abcdef" * 2, "--users", "u1"], "no finished trial 0123456789abcdef"),
        (["--run", ".", "--users", "u1"], ".: not the folder of a finished trial, which has model.pt"),
        (["--run", "TRIAL", "--users", " , "], "no user id in it"),
        (["--run", "TRIAL", "--users", "@nowhere.txt"], "nowhere.txt cannot be read (No such file or directory)"),
        (["--run", "TRIAL", "--users", "u1", "--k", "41"], "--k: k must lie in 1..40 (the catalogue), got 41"),
        (["--run", "TRIAL", "--users", "u1", "--data", "nowhere"], "it holds no prepared dataset (nowhere)"),
        (["--run", "GRID_RUN", "--users", "u1"], "no trial.json in the artifact store"),
        (["--run", "a@b@c", "--users", "u1"], "expected the name of a registered model"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, storage, confirmed, capsys, tmp_path, monkeypatch):
    grid = next(t for t in read_results(f"sqlite:///{storage}/mlflow.db", "toy").trials if not t.seed)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    known = {"TRIAL": confirmed.hash, "GRID_RUN": grid.run_id}
    arguments = [known.get(argument, argument) for argument in arguments]
    assert message in refused(capsys, "recommend", *arguments, "--storage", storage)
    assert list((tmp_path / "cwd").iterdir()) == []


def test_names_near_a_registered_one_are_told(storage, capsys):
    register_selected(f"sqlite:///{storage}/mlflow.db", "toy", ["toy/mf/sl"], False, [], print)
    capsys.readouterr()
    common = ["recommend", "--users", "u1", "--storage", storage, "--run"]
    assert "did you mean 'toy.toy.mf.sl'?" in refused(capsys, *common, "toy.toy.mf.ls")
    assert "unknown alias of 'toy.toy.mf.sl': 'best'" in refused(capsys, *common, "toy.toy.mf.sl@best")
    assert "cannot be used" in refused(capsys, *common, "toy.toy.mf.sl/9")


@pytest.fixture
def cosine(serve, a_trial):
    return serve(a_trial())


def top_by(users, items, k):
    """Rows of the k items with the largest inner product of each user."""
    return np.argsort(-(users @ items.T), axis=1)[:, :k]


def test_exported_parquet_gives_the_ranking(cosine, tmp_path):
    export(cosine, "parquet", tmp_path / "out")
    users, items = (pq.read_table(tmp_path / "out" / f"{side}.parquet") for side in ("users", "items"))
    ids = items["id"].to_pylist()
    assert ids == [f"i{i}" for i in sorted(range(40), key=lambda i: f"i{i}")], "in the order of the prepared dataset"
    u, v = (np.stack(table["embedding"].to_numpy()) for table in (users, items))
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, rtol=1e-6)
    for user, row in zip(users["id"].to_pylist(), top_by(u, v, 10), strict=True):
        assert cosine.recommend([user], 10, hide_seen=False)["item"].tolist() == [ids[i] for i in row]
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["similarity"] == "cosine"
    assert about["normalised"] is True
    assert about["score"].startswith("the inner product")


def test_exported_arrays_are_the_parquet_s(serve, a_trial, tmp_path):
    dot = serve(a_trial(loss="bpr"))
    assert {path.name for path in export(dot, "npy", tmp_path / "npy")} == {
        "export.json", "user_embeddings.npy", "item_embeddings.npy", "users.parquet", "items.parquet"
    }  # fmt: skip
    export(dot, "parquet", tmp_path / "parquet")
    for side in ("user", "item"):
        table = pq.read_table(tmp_path / "parquet" / f"{side}s.parquet")
        array = np.load(tmp_path / "npy" / f"{side}_embeddings.npy", allow_pickle=False)
        np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), array)
        assert pq.read_table(tmp_path / "npy" / f"{side}s.parquet")["id"].to_pylist() == table["id"].to_pylist()
    assert json.loads((tmp_path / "npy" / "export.json").read_text())["normalised"] is False


def test_the_faiss_index_gives_the_ranking(cosine, tmp_path):
    faiss = pytest.importorskip("faiss")
    export(cosine, "faiss", tmp_path / "out")
    index = faiss.read_index(str(tmp_path / "out" / "items.faiss"))
    users = pq.read_table(tmp_path / "out" / "users.parquet")["id"].to_pylist()
    items = pq.read_table(tmp_path / "out" / "items.parquet")["id"].to_pylist()
    scores, labels = index.search(np.load(tmp_path / "out" / "user_embeddings.npy"), 10)
    for user, own, found in zip(users, scores, labels, strict=True):
        expected = cosine.recommend([user], 10, hide_seen=False)
        np.testing.assert_allclose(own, expected["score"], rtol=1e-5)
        assert [items[i] for i in found] == expected["item"].tolist()


def test_export_by_the_command(storage, confirmed, capsys, tmp_path):
    out = tmp_path / "vectors"
    said = asked(capsys, "export", "--run", confirmed.hash, "--out", out, "--storage", storage)
    assert said.split() == [str(out / name) for name in ("export.json", "items.parquet", "users.parquet")]
    again = refused(capsys, "export", "--run", confirmed.hash, "--out", out, "--storage", storage)
    assert f"{out}: exists and is not empty" in again
    assert len(list(out.iterdir())) == 3


def test_nothing_half_written(cosine, tmp_path, monkeypatch):
    def full(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.serving.export.write", full)
    with pytest.raises(InputError, match="No space left on device"):
        export(cosine, "parquet", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranking"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exists and is not empty"):
        export(cosine, "npy", tmp_path / "file")


def test_faiss_missing_is_said(cosine, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.serving.export.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install it: pip install 'recloss\[faiss\]'"):
        export(cosine, "faiss", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_items_by_items_have_no_embeddings(serve, a_reference, tmp_path):
    ease = serve(a_reference("ease"))
    assert not isinstance(ease.scores, Embeddings)
    with pytest.raises(InputError, match="ease: a model of items by items, it has no embeddings"):
        export(ease, "npy", tmp_path / "out")


def test_a_damaged_trial_is_told(folder_of, a_trial, prepared, capsys, tmp_path):
    folder = shutil.copytree(folder_of(a_trial()), tmp_path / "copy")
    (folder / "model.pt").write_bytes(b"junk")
    said = refused(capsys, "export", "--run", folder, "--out", tmp_path / "out", "--data", prepared)
    assert "model.pt: the checkpoint is damaged" in said
    assert not (tmp_path / "out").exists()
