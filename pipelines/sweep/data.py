"""The prepared datasets of a sweep: loaded, or made where they are missing."""

from pipelines.prepare import Prepared, load, prepare
from pipelines.public import fetch, readable
from pipelines.settings import DataSettings, PrepareSettings
from pipelines.sweep.progress import Say
from recloss.errors import InputError


def prepare_data(data: DataSettings, say: Say) -> Prepared:
    """The prepared dataset of a sweep, made now if its folder is missing.

    Raises:
        InputError: if it can neither be loaded nor made, or was prepared with other settings.
    """
    settings = data.prepare or PrepareSettings()
    if data.fetch:
        settings = readable(data.fetch, settings)
    if (data.path / "manifest.json").exists():
        found = load(data.path)
        if data.prepare and not settings.equal(found.manifest["settings"]):
            raise InputError(
                f"{data.path}: prepared with other settings than data {data.name!r} of the sweep; "
                "remove the folder or give another 'path'"
            )
        return found
    if not (data.fetch or data.raw):
        raise InputError(
            f"{data.path}: no prepared dataset; give 'fetch' or 'raw' for data {data.name!r}, or prepare it first"
        )
    raw = fetch(data.fetch, on_step=say) if data.fetch else data.raw
    assert raw is not None
    prepare(raw, data.path, settings, on_step=say)
    return load(data.path)
