"""MLflow's model registry: the selected models as versions of registered models, and trials' models read back."""

import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.tracking.runs import paged
from pipelines.tracking.store import contact, impatient
from pipelines.train.folder import CONFIG, MODEL
from recloss.errors import InputError, choices

ALIAS = "selected"
"""Of the version that is the cell's selected model now."""
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow")
RANKING = "ranking"
"""Name of the folder of arrays."""
_OUTPUT = {"user": "string", "item": "string", "rank": "long", "score": "double", "fallback": "boolean"}
_DESCRIPTION = "Top items for user ids; the alias `selected` names the version that the sweep's validation selected."
_TRANSFER_SECONDS = 300
"""A server that is silent for longer while a model goes up or down does not answer."""


@dataclass(frozen=True)
class StoredTrial:
    """A trial that the tracking store knows."""

    run_id: str
    experiment: str
    """Name of its sweep; "train" outside any."""


def find_trial(uri: str, name: str) -> StoredTrial | None:
    """A trial by its hash or by the id of its MLflow run; of several, the latest one that finished.

    Raises:
        InputError: if the store does not answer.
    """
    with contact(uri, create=False) as client:
        experiments = {
            e.experiment_id: e.name for e in paged(lambda token: client.search_experiments(page_token=token))
        }
        what = "tags.`recloss.trial`" if len(name) < 32 else "attributes.run_id"
        found = client.search_runs(
            list(experiments),
            f"{what} = '{name}' AND tags.`recloss.kind` = 'trial' AND attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return StoredTrial(found[0].info.run_id, experiments[found[0].info.experiment_id]) if found else None


def download_trial(uri: str, run_id: str, folder: Path) -> None:
    """Get the settings (`CONFIG`) and the model of a trial from the artifact store into a folder.

    Raises:
        InputError: if they are not there (only confirmed trials of a sweep have them), or a store does not answer.
    """
    with contact(uri, create=False) as client, impatient(_TRANSFER_SECONDS):
        kept = {info.path for info in client.list_artifacts(run_id)}
        for name in (CONFIG, MODEL):
            if name not in kept:
                raise InputError(
                    f"run {run_id}: no {name} in the artifact store, which has those of a sweep's confirmed trials; "
                    "of another trial give the folder"
                )
            client.download_artifacts(run_id, name, str(folder))


def download_registered(uri: str, name: str, folder: Path) -> Path:
    """Get the arrays of a registered model into a folder; its code is neither run nor trusted.

    Args:
        uri: of the tracking store.
        name: ``<model>``, which is its version `ALIAS`, ``<model>@<alias>`` or ``<model>/<version>``; ``models:/`` may
            stand before it.
        folder: where to.

    Returns:
        The folder of the arrays, for `pipelines.tracking.served.Ranking`.

    Raises:
        InputError: if there is no such model or version, it is not one of ours, or the store does not answer.
    """
    from mlflow.artifacts import download_artifacts

    parts = re.fullmatch(r"(?:models:/)?([^/@]+)(?:@([^/@]+)|/(\d+))?", name)
    if parts is None:
        raise InputError(f"{name!r}: expected the name of a registered model, as NAME, NAME@ALIAS or NAME/VERSION")
    model, alias, number = parts.groups()
    with contact(uri, create=False) as client, impatient(_TRANSFER_SECONDS):
        known = [m.name for m in paged(lambda token: client.search_registered_models(page_token=token))]
        if model not in known:
            empty = f"unknown registered model {model!r}: none is registered (`recloss register` does)"
            raise InputError(choices("registered model", model, known) if known else empty)
        if number is None:
            aliases = client.get_registered_model(model).aliases
            if (alias := alias or ALIAS) not in aliases:
                none = f"registered model {model!r} has no aliases; give a version, as {model}/1"
                raise InputError(choices(f"alias of {model!r}:", alias, aliases) if aliases else none)
            number = aliases[alias]
        source = client.get_model_version_download_uri(model, number)
        got = Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=client.tracking_uri))
    arrays = got / "artifacts" / RANKING
    if not arrays.is_dir():
        raise InputError(f"registered model {model!r}, version {number}: not written by `recloss register`")
    return arrays


def sweep_settings(uri: str, experiment: str) -> dict[str, Any]:
    """The resolved settings of a sweep's latest run.

    Raises:
        InputError: if the store does not answer or knows no such sweep.
    """
    with contact(uri, create=False) as client, tempfile.TemporaryDirectory() as folder:
        found = client.get_experiment_by_name(experiment)
        runs = found and client.search_runs([found.experiment_id], "tags.`recloss.kind` = 'sweep'", max_results=1)
        if not runs:
            raise InputError(f"the tracking store knows no sweep {experiment!r}")
        file = client.download_artifacts(runs[0].info.run_id, "sweep.json", folder)
        settings: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    return settings


def registered_version(uri: str, name: str, of: Mapping[str, str], trial: str) -> str | None:
    """The version of a registered model that is a trial's; `ALIAS` names it afterwards.

    Args:
        uri: of the tracking store.
        name: of the registered model.
        of: see `register`.
        trial: hash of the trial.

    Returns:
        ``None`` if the trial has not been registered.

    Raises:
        InputError: see `register`.
    """
    with contact(uri, create=False) as client:
        found = client.search_registered_models(f"name = '{name}'")
        if not found:
            return None
        if any(found[0].tags.get(key) != value for key, value in of.items()):
            has = ", ".join(found[0].tags.get(key, "nothing") for key in of)
            raise InputError(f"the registry has a model {name!r} of something else ({has}); rename it there")
        versions = paged(lambda token: client.search_model_versions(f"name = '{name}'", page_token=token))
        number = next((str(v.version) for v in versions if v.tags.get("recloss.trial") == trial), None)
        if number is not None and str(found[0].aliases.get(ALIAS)) != number:
            client.set_registered_model_alias(name, ALIAS, number)
        return number


def register(uri: str, name: str, run_id: str, arrays: Path, of: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """Add a version to a registered model, made where it is missing, and let `ALIAS` name it.

    The model is an artifact of the trial's run, ``model``; its version is created when all of it is there. Call
    `registered_version` first, which finds the version if there is one.

    Args:
        uri: of the tracking store.
        name: of the registered model.
        run_id: of the trial.
        arrays: folder that `pipelines.serving.snapshot` wrote, of the name `RANKING`.
        of: the cell that the registered model is of, as its tags; a model of that name with others is refused.
        tags: of the version.

    Returns:
        The version.

    Raises:
        InputError: if another cell has the name, or the store does not answer or refuses.
    """
    with contact(uri, create=False) as client, impatient(_TRANSFER_SECONDS):
        with tempfile.TemporaryDirectory() as folder:
            save_model(arrays, Path(folder) / "model")
            client.log_artifacts(run_id, str(Path(folder) / "model"), "model")
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, dict(of), _DESCRIPTION)
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        made = str(client.create_model_version(name, source, run_id, tags=dict(tags)).version)
        client.set_registered_model_alias(name, ALIAS, made)
    return made


def save_model(arrays: Path, out: Path) -> None:
    """Write a ``pyfunc`` model folder: the code `pipelines.tracking.served` and the arrays, without any pickle."""
    import pandas as pd
    import pyarrow.parquet as pq
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model as save
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    from pipelines.tracking.served import K

    k = min(K, pq.read_metadata(arrays / "items.parquet").num_rows)
    signature = ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "user")]),
        outputs=Schema([ColSpec(DataType[kind], name) for name, kind in _OUTPUT.items()]),
        params=ParamSchema([ParamSpec("k", DataType.long, k), ParamSpec("hide_seen", DataType.boolean, True)]),
    )
    users = pq.read_table(arrays / "users.parquet")["id"][:2].to_pylist()
    code = Path(__file__).with_name("served.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(
            path=str(out),
            python_model=str(code),
            artifacts={RANKING: str(arrays)},
            signature=signature,
            input_example=(pd.DataFrame({"user": users}), {"k": min(k, 3)}),
            pip_requirements=[f"{package}=={version(package)}" for package in _REQUIREMENTS],
        )
    model = Model.load(out)  # MLflow notes where the files were before: of no use, and nobody's business
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = code.name
    flavor["artifacts"][RANKING]["uri"] = flavor["artifacts"][RANKING]["path"]
    model.save(out / "MLmodel")
