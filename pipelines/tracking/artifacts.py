"""Files that trials left in the artifact store: per-user test metrics, diagnostics."""

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pipelines.tracking.read import Results, TrialRun
from pipelines.tracking.store import contact, impatient, reason, redact, store_errors
from pipelines.train.folder import DIAGNOSTICS, TEST_USERS
from recloss.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_AT_ONCE = 8
"""Files that are read at the same time."""
_REQUEST_SECONDS = 30


def read_artifacts(uri: str, results: Results, name: str, hashes: Iterable[str]) -> dict[str, bytes]:
    """One file of each of several trials, from the artifact store.

    Args:
        uri: of the tracking store, which knows how to reach the artifact store.
        results: what the tracking store holds.
        name: of the file among a trial's artifacts, such as ``diagnostics.json``.
        hashes: of the trials.

    Returns:
        The content by trial hash; trials without the file are absent.

    Raises:
        InputError: if a store does not answer, or a file that is there cannot be read.
    """
    return _read(uri, results, name, hashes, lambda trial, content: content)


def read_test_users(
    uri: str, results: Results, hashes: Iterable[str], columns: Collection[str] | None = None
) -> dict[str, "pa.Table"]:
    """Per-user test metrics of trials, from the artifact store.

    Args:
        uri: of the tracking store.
        results: what the tracking store holds.
        hashes: of the trials.
        columns: metrics to read, such as ``["ndcg_20"]``, where a trial has them; all where not given.

    Returns:
        By trial hash: ``user`` (index of the user) and a column per metric. Trials that were not scored are absent,
        and those of which the file is damaged, which is logged as a warning.

    Raises:
        InputError: see `read_artifacts`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = None if columns is None else ["user", *columns]

    def parse(trial: TrialRun, content: bytes) -> "pa.Table | None":
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            known = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
            table = file.read(known, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            why = str(error).splitlines()[0]
        else:
            if "user" in table.column_names:
                return table
            why = "it has no column user"
        getLogger(__name__).warning("trial %s: its %s is damaged and left out (%s)", trial.hash, TEST_USERS, why)
        return None

    tables = _read(uri, results, TEST_USERS, hashes, parse)
    return {trial: table for trial, table in tables.items() if table is not None}


def read_diagnostics(uri: str, results: Results, hashes: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """What trials' models look like from inside (see `pipelines.train.diagnostics`), from the artifact store.

    Args:
        uri: of the tracking store.
        results: what the tracking store holds.
        hashes: of the trials.

    Returns:
        By trial hash; trials without the file are absent, and those of which it is damaged, which is logged as a
        warning.

    Raises:
        InputError: see `read_artifacts`.
    """
    found = {}
    for trial, content in read_artifacts(uri, results, DIAGNOSTICS, hashes).items():
        try:
            found[trial] = json.loads(content)
        except ValueError as error:
            getLogger(__name__).warning("trial %s: its %s is damaged and left out (%s)", trial, DIAGNOSTICS, error)
    return found


def _read(
    uri: str, results: Results, name: str, hashes: Iterable[str], use: Callable[[TrialRun, bytes], T]
) -> dict[str, T]:
    """What ``use`` makes of each trial's file, the files read and used in parallel."""
    wanted = set(hashes)
    trials = [trial for trial in results.trials if trial.hash in wanted and trial.artifacts]
    if all(_local(trial.artifacts) for trial in trials):
        return _each(trials, lambda trial: _read_local(trial, name), use)
    with contact(uri, create=False):
        pass
    with impatient(_REQUEST_SECONDS):
        return _each(trials, lambda trial: _fetch(uri, trial, name), use)


def _each(
    trials: list[TrialRun], load: Callable[[TrialRun], bytes | None], use: Callable[[TrialRun, bytes], T]
) -> dict[str, T]:
    def one(trial: TrialRun) -> list[T]:
        content = load(trial)
        return [] if content is None else [use(trial, content)]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(one, trials))
    return {trial.hash: made[0] for trial, made in zip(trials, found, strict=True) if made}


def _local(artifacts: str) -> Path | None:
    """The folder, if the artifacts lie in one of this machine."""
    parts = urlsplit(artifacts)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(artifacts)


def _read_local(trial: TrialRun, name: str) -> bytes | None:
    folder = _local(trial.artifacts)
    assert folder is not None
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{folder / name} cannot be read ({error.strerror})") from None


def _fetch(uri: str, trial: TrialRun, name: str) -> bytes | None:
    """By MLflow's own client: a server's artifacts, or those in a cloud's store."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    folder_uri = trial.artifacts.rstrip("/") + "/"
    try:
        if name not in (info.path for info in list_artifacts(artifact_uri=folder_uri, tracking_uri=uri)):
            return None
        with tempfile.TemporaryDirectory() as folder:
            got = download_artifacts(artifact_uri=folder_uri + name, dst_path=folder, tracking_uri=uri)
            return Path(got).read_bytes()
    except store_errors() as error:
        place = redact(folder_uri + name)
        raise InputError(f"{place} cannot be read from the artifact store ({reason(error)})") from None
