"""Reaching a tracking store: which URIs there are, and one line in seconds for one that does not answer."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from recloss.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

UI_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
"""What an MLflow server needs to be one process, and silent (else it starts ten)."""

_CONTACT_SECONDS = 5
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SCHEMES = ("sqlite", "http", "https", *_DATABASE_PORTS)
_EXAMPLES = "give e.g. sqlite:////home/me/mlflow.db or http://host:5000"


def ui_command(uri: str, port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """Command that serves MLflow's pages on this machine, and what its environment needs beside the caller's.

    The URI, which may hold a password, is in the environment: everybody on the machine may read a command line.

    Raises:
        InputError: if the URI is malformed, a server already, or names no store.
    """
    if uri.startswith("http"):
        raise InputError(f"{shown(uri)} is an MLflow server already: open it in a browser")
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**UI_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": _database_uri(uri, create=False)}
    return [sys.executable, "-m", "mlflow", "server", *place], environment


@contextmanager
def contact(uri: str, *, create: bool) -> Iterator["MlflowClient"]:
    """A client of a store that answers; inside the block a silent server is given up within seconds.

    Args:
        uri: ``sqlite:///<file>``, a database server or ``http(s)://<MLflow server>``.
        create: make a SQLite file (and its folder) that is not there.

    Raises:
        InputError: one line without credentials.
    """
    if uri.startswith(("http://", "https://")):
        _check_host(uri)
    else:
        uri = _database_uri(uri, create=create)
    client_class, errors = _quiet_mlflow(), store_errors()
    with impatient(_CONTACT_SECONDS):
        try:
            client = client_class(uri)
            client.search_experiments(max_results=1)
            yield client
        except errors as error:
            raise InputError(f"tracking store {shown(uri)} cannot be used: {reason(error)}") from None


def check_not_deleted(experiment: "Experiment") -> None:
    """Refuse an experiment in MLflow's bin.

    Raises:
        InputError: how to get it back.
    """
    if experiment.lifecycle_stage == "deleted":
        raise InputError(
            f"experiment {experiment.name!r} was deleted in MLflow; restore it (mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}) or give the sweep another name"
        )


def shown(uri: str) -> str:
    """The URI in quotes, as a message may show it."""
    return repr(redact(uri))


def redact(text: str, uri: str = "") -> str:
    """Text without the user names, passwords and query strings of its URIs, nor the password of ``uri`` by itself."""
    if credentials := re.search(r"://(?:[^:/@\s]*:)?(\S+)@", uri):
        text = text.replace(credentials[1], "***").replace(unquote(credentials[1]), "***")
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1?***", re.sub(r"(:/*)\S*@", r"\1***@", text))


def reason(error: BaseException) -> str:
    """What lies at the bottom of an exception, as one short line without credentials."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    lines = str(error).strip().splitlines()
    return redact(lines[0][:300] if lines else type(error).__name__)


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised when a store does not answer or refuses."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, ImportError, OSError


@contextmanager
def impatient(seconds: int) -> Iterator[None]:
    """MLflow's client repeats a failed HTTP request for minutes; in the block it gives one this long, and once."""
    hurry = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)}
    before = {key: os.environ.get(key) for key in hurry}
    os.environ.update(hurry)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def _quiet_mlflow() -> type["MlflowClient"]:
    """Import MLflow (seconds) without its reports to its makers and its talk on the terminal."""
    for key in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        os.environ.setdefault(key, "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        getLogger(name).setLevel(WARNING)
    return MlflowClient


def _check_host(uri: str) -> None:
    try:
        host, _ = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError:
        host = None
    if not host:
        raise InputError(f"tracking URI {shown(uri)} is malformed; {_EXAMPLES}")


def _database_uri(uri: str, *, create: bool) -> str:
    """The URI with an absolute path, of a database that can be opened (MLflow would try again for minutes).

    Raises:
        InputError: if it is malformed or the database cannot be opened.
    """
    import sqlalchemy

    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in _SCHEMES:
        accepted = ", ".join(_SCHEMES)
        raise InputError(f"tracking URI {shown(uri)}: unknown scheme; {_EXAMPLES} (accepted: {accepted})")
    try:
        url = sqlalchemy.make_url(uri)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(f"tracking URI {shown(uri)} is malformed; {_EXAMPLES}") from None
    try:
        if scheme == "sqlite":
            if url.database in (None, "", ":memory:"):
                raise InputError(f"tracking URI {shown(uri)} names no file; {_EXAMPLES}")
            path = Path(str(url.database)).absolute()
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif not path.is_file():
                raise InputError(f"no tracking store at {path}: nothing was recorded there yet")
            url = url.set(database=str(path))
        elif url.host:
            address = (url.host, url.port or _DATABASE_PORTS[scheme])
            socket.create_connection(address, _CONTACT_SECONDS).close()
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            sqlalchemy.inspect(connection).get_table_names()
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError) as error:
        raise InputError(f"tracking store {shown(uri)} cannot be opened: {reason(error)}") from None
    return url.render_as_string(hide_password=False)
