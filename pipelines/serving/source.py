"""What `--run` names: a trial by its folder, its hash or its MLflow run, or a registered model."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.prepare.dataset import MANIFEST, read_manifest
from pipelines.serving.snapshot import write_snapshot
from pipelines.settings import Trial
from pipelines.tracking.models import RANKING, download_registered, download_trial, find_trial, sweep_settings
from pipelines.tracking.served import Ranking
from pipelines.train import journal
from pipelines.train.folder import CONFIG, MODEL, status
from recloss.errors import InputError

_HASH, _RUN = 16, 32
"""Hex digits of a trial's hash and of the id of an MLflow run."""


@contextmanager
def open_ranking(run: str, uri: str, storage: Path, data: Sequence[Path]) -> Iterator[Ranking]:
    """The ranking of a trained model, for the duration of the block.

    Args:
        run: folder or hash of a trial, id of its MLflow run, or a registered model (NAME, NAME@ALIAS, NAME/VERSION).
        uri: of the tracking store.
        storage: folder of trials.
        data: prepared datasets to look in before those that the sweep names; a registered model needs none.

    Raises:
        InputError: one line, for anything that is not there or does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="recloss-") as scratch:
        arrays = _arrays(run, uri, storage, data, Path(scratch))
        try:
            ranking = Ranking(arrays)
        except (ValueError, OSError) as error:
            raise InputError(f"{run}: its files are damaged ({error})") from None
        yield ranking


def data_folder(fingerprint: str, given: Sequence[Path], uri: str, experiment: str) -> Path:
    """The folder of the prepared dataset of a fingerprint: of those given, else of those that the sweep names.

    Raises:
        InputError: if none holds it.
    """
    if given:
        candidates, why = list(given), "it holds" if len(given) == 1 else "they hold"
    else:
        try:
            settings = sweep_settings(uri, experiment)
        except InputError as error:
            raise InputError(f"{error}; name the prepared dataset with --data") from None
        candidates, why = [Path(data["path"]) for data in settings["data"]], "the folders that the sweep names hold"
    found = {folder: read_manifest(folder)["fingerprint"] for folder in candidates if (folder / MANIFEST).exists()}
    for folder, held in found.items():
        if held == fingerprint:
            return folder
    shown = ", ".join(f"{folder}: {held[:12]}" for folder, held in found.items())
    places = ", ".join(map(str, candidates))
    raise InputError(
        f"data {fingerprint[:12]} of the trial not found: {why} {shown or f'no prepared dataset ({places})'}; "
        "name its folder with --data"
    )


def _arrays(run: str, uri: str, storage: Path, data: Sequence[Path], scratch: Path) -> Path:
    folder = Path(run)
    if not folder.is_dir() and re.fullmatch(f"[0-9a-f]{{{_HASH}}}", run):
        folder = next(iter(sorted(path.parent for path in storage.glob(f"*/{run}/{MODEL}"))), folder)
    if folder.is_dir():
        trial, model, experiment = _of_folder(folder), folder / MODEL, folder.absolute().parent.name
    elif re.fullmatch(f"[0-9a-f]{{{_HASH}}}|[0-9a-f]{{{_RUN}}}", run):
        stored = find_trial(uri, run)
        if stored is None:
            raise InputError(f"no finished trial {run} in {storage}, nor in the tracking store")
        download_trial(uri, stored.run_id, scratch)
        trial, model, experiment = read_trial(scratch / CONFIG), scratch / MODEL, stored.experiment
    elif "/" in run and not re.fullmatch(r"models:/.*|[^/]+/\d+", run):
        raise InputError(f"{run}: no such folder; expected that of a trial, with {MODEL} and {journal.FILE}")
    else:
        (scratch / "registered").mkdir()
        return download_registered(uri, run, scratch / "registered")
    place = data_folder(trial.data, data, uri, experiment)
    write_snapshot(trial, model, place, scratch / RANKING, {"sweep": experiment})
    return scratch / RANKING


def read_trial(file: Path) -> Trial:
    """The settings of a trial in a file.

    Raises:
        InputError: if they are not.
    """
    try:
        return Trial.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file.name}: not the settings of a trial ({str(error).splitlines()[0]})") from None


def _of_folder(folder: Path) -> Trial:
    if status(folder) != "finished":
        raise InputError(f"{folder}: not the folder of a finished trial, which has {MODEL} and {journal.FILE}")
    start = journal.last(journal.read(folder), "start")
    assert start is not None
    return Trial.model_validate(start["trial"])
