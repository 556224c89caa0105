"""The registry: what is registered, under which name, once; the model folder holds no pickle and needs no recloss."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest

from pipelines.commands import run
from pipelines.serving.register import model_name, register_selected
from pipelines.tracking import read_results
from pipelines.tracking.models import save_model
from pipelines.tracking.store import contact
from recloss.checkpoints import load_checkpoint, save_atomically
from recloss.errors import InputError

NAMES = ["toy.toy.mf.bpr", "toy.toy.mf.sl"]


@pytest.fixture
def uri(storage):
    return f"sqlite:///{storage}/mlflow.db"


def registered(uri):
    """Model name to its versions (their tags) and aliases."""
    with contact(uri, create=False) as client:
        return {
            model.name: (
                {v.version: v.tags for v in client.search_model_versions(f"name = '{model.name}'")},
                model.aliases,
            )
            for model in client.search_registered_models()
        }


def best_seed(uri, loss):
    trials = [t for t in read_results(uri, "toy").trials if t.loss == loss and t.seed]
    return max(trials, key=lambda t: t.metrics["best"])


def test_the_selected_models_are_registered_once(storage, uri, capsys):
    said = []
    made = register_selected(uri, "toy", [], False, [], said.append)
    assert [(m.name, m.version, m.new) for m in made] == [("toy.toy.mf.sl", "1", True), ("toy.toy.mf.bpr", "1", True)]
    assert said[-1] == "toy/mf/psl: left out, no trial yet"
    again = register_selected(uri, "toy", [], False, [], said.append)
    assert [(m.name, m.version, m.new) for m in again] == [
        ("toy.toy.mf.sl", "1", False),
        ("toy.toy.mf.bpr", "1", False),
    ]
    assert "was registered" in said[-2]
    found = registered(uri)
    assert sorted(found) == NAMES
    for name, (versions, aliases) in found.items():
        trial = best_seed(uri, name.rpartition(".")[2])
        assert aliases == {"selected": 1}
        (tags,) = versions.values()
        expected = {
            "recloss.trial": trial.hash, "recloss.fingerprint": trial.fingerprint, "recloss.seed": str(trial.seed),
            "recloss.sweep": "toy", "recloss.data": "toy", "recloss.backbone": "mf", "recloss.loss": trial.loss,
            "valid/ndcg_5": str(trial.metrics["best"]), "test/ndcg_5": str(trial.metrics["test/ndcg_5"]),
        }  # fmt: skip
        assert expected.items() <= tags.items()
        assert not [value for value in tags.values() if "/" in value], "no paths, no addresses"


def test_another_selected_trial_is_another_version_and_the_alias_follows(storage, uri, monkeypatch):
    monkeypatch.setattr("pipelines.serving.register._trial", lambda cell: min(cell.confirmation, key=lambda t: t.seed))
    register_selected(uri, "toy", ["toy/mf/SL"], False, [], print)
    monkeypatch.setattr("pipelines.serving.register._trial", lambda cell: max(cell.confirmation, key=lambda t: t.seed))
    register_selected(uri, "toy", ["toy/mf/SL"], False, [], print)
    versions, aliases = registered(uri)["toy.toy.mf.sl"]
    assert {number: tags["recloss.seed"] for number, tags in versions.items()} == {1: "1", 2: "2"}
    assert aliases == {"selected": 2}
    monkeypatch.setattr("pipelines.serving.register._trial", lambda cell: min(cell.confirmation, key=lambda t: t.seed))
    register_selected(uri, "toy", ["toy/mf/SL"], False, [], print)
    versions, aliases = registered(uri)["toy.toy.mf.sl"]
    assert (len(versions), aliases) == (2, {"selected": 1})


def test_best_is_the_cell_with_the_best_validation(uri):
    assert [m.name for m in register_selected(uri, "toy", [], True, [], print)] == ["toy.toy.mf.sl"]
    assert list(registered(uri)) == ["toy.toy.mf.sl"]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("demo", "ml-100k", "mf", "sl"), "demo.ml-100k.mf.sl"),
        (("demo", "shop (split 3)", "mf", "sl"), "demo.shop-split3.mf.sl"),
        (("a/b:c", "d e", "mf", "sl"), "a-b-c.d-e.mf.sl"),
    ],
)
def test_names_have_the_characters_that_the_registry_takes(parts, name):
    assert model_name(*parts) == name


def test_a_name_of_another_cell_is_refused(uri):
    with contact(uri, create=False) as client:
        client.create_registered_model("toy.toy.mf.sl", {"recloss.sweep": "toy", "recloss.data": "toy.mf"})
    with pytest.raises(InputError, match=r"a model 'toy\.toy\.mf\.sl' of something else \(toy, toy\.mf, nothing, noth"):
        register_selected(uri, "toy", ["toy/mf/sl"], False, [], print)


def test_what_cannot_be_registered_is_said(storage, uri, prepared, tmp_path, capsys):
    def refused(*more):
        assert run(["register", "--experiment", "toy", "--tracking-uri", uri, *more]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        return printed

    assert "unknown cell 'toy/mf/slx'; did you mean 'toy/mf/sl'?" in refused("--cell", "toy/mf/slx")
    assert "no cell has a confirmed model" in refused("--cell", "toy/mf/psl")
    assert f"it holds no prepared dataset ({tmp_path}/no)" in refused("--cell", "toy/mf/sl", "--data", f"{tmp_path}/no")
    assert registered(uri) == {}
    manifest = json.loads((prepared / "manifest.json").read_text()) | {"fingerprint": "f" * 64}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest))
    said = refused("--cell", "toy/mf/sl", "--data", f"{tmp_path}/other")
    assert f"not found: it holds {tmp_path}/other: ffffffffffff; name its folder with --data" in said


@pytest.fixture
def model(serve, a_trial, prepared, tmp_path):
    """Folder of a saved model."""
    serve(a_trial())
    save_model(tmp_path / "ranking", tmp_path / "model")
    return tmp_path / "model"


def kind_of(file: Path) -> str:
    content = file.read_bytes()
    if content.startswith(b"\x93NUMPY"):
        assert not np.load(file, mmap_mode="r", allow_pickle=False).dtype.hasobject
        return "array"
    if content[:4] == content[-4:] == b"PAR1":
        return "Parquet"
    assert content.decode().isprintable() or "\n" in content.decode()
    return "text"


def test_a_model_folder_holds_text_arrays_and_parquet_only(model, tmp_path):
    files = {str(file.relative_to(model)): kind_of(file) for file in model.rglob("*") if file.is_file()}
    arrays = ("user_embeddings", "item_embeddings", "hidden_offsets", "hidden_items")
    assert files == {
        **dict.fromkeys((f"artifacts/ranking/{name}.npy" for name in arrays), "array"),
        **dict.fromkeys((f"artifacts/ranking/{name}.parquet" for name in ("users", "items")), "Parquet"),
        "artifacts/ranking/ranking.json": "text",
        **dict.fromkeys(("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "served.py"), "text"),
        **dict.fromkeys(("input_example.json", "serving_input_example.json"), "text"),
    }
    for file, kind in files.items():
        if kind == "text":
            assert str(tmp_path) not in (model / file).read_text(), "nothing of where it was made"
    names = {line.partition("==")[0] for line in (model / "requirements.txt").read_text().splitlines()}
    assert names == {"mlflow", "numpy", "pandas", "pyarrow"}


def test_loading_and_predicting_unpickles_nothing(model, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("something was unpickled")

    for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (cloudpickle, "load")]:
        monkeypatch.setattr(module, name, refuse)
    top = mlflow.pyfunc.load_model(str(model)).predict(pd.DataFrame({"user": ["u1"]}), params={"k": 3})
    assert len(top) == 3


def test_a_model_works_where_recloss_is_not(model, tmp_path):
    program = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("recloss", "pipelines", "tune_spaces", "torch", "ray"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pandas.DataFrame({"user": ["u1", "x"]}), params={"k": 2}).to_json(orient="records"))
"""
    (tmp_path / "elsewhere").mkdir()
    moved = model.rename(tmp_path / "elsewhere" / "moved")
    said = subprocess.run(
        [sys.executable, "-c", program, moved], capture_output=True, text=True, cwd=tmp_path / "elsewhere"
    )
    assert said.returncode == 0, said.stderr
    rows = json.loads(said.stdout.splitlines()[-1])
    assert [(row["user"], row["rank"], row["fallback"]) for row in rows] == [
        ("u1", 1, False), ("u1", 2, False), ("x", 1, True), ("x", 2, True),
    ]  # fmt: skip


def test_three_lines_of_python_give_what_the_command_gives(storage, uri, capsys, monkeypatch):
    assert run(["register", "--experiment", "toy", "--cell", "toy/mf/sl", "--storage", str(storage)]) == 0
    capsys.readouterr()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = os.getcwd()
    model = mlflow.pyfunc.load_model("models:/toy.toy.mf.sl@selected")
    top = model.predict(pd.DataFrame({"user": ["u1", "nobody"]}), params={"k": 4, "hide_seen": False})
    shown = ["recommend", "--users", "u1,nobody", "--k", "4", "--show-seen", "--format", "json"]
    assert run([*shown, "--run", "toy.toy.mf.sl", "--storage", str(storage)]) == 0
    assert json.loads(capsys.readouterr().out) == top.to_dict("records")
    assert os.getcwd() == before


def test_a_model_that_is_not_the_trial_s_is_refused(serve, a_trial, folder_of, prepared, tmp_path):
    from pipelines.serving.snapshot import write_snapshot

    trial, other = a_trial(), a_trial(backbone__dim=4)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=rf"not the model of trial {trial.hash} \(Error"):
        write_snapshot(trial, folder_of(other) / "model.pt", prepared, out, {})
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.pt: the checkpoint is damaged"):
        write_snapshot(trial, tmp_path / "junk.pt", prepared, out, {})
    state = load_checkpoint(folder_of(trial) / "model.pt")
    state["backbone"]["item"][0, 0] = float("nan")
    save_atomically(tmp_path / "nan.pt", state)
    with pytest.raises(InputError, match=r"nan\.pt: the model is not finite"):
        write_snapshot(trial, tmp_path / "nan.pt", prepared, out, {})
    assert not out.exists()
