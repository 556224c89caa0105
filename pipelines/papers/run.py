"""Run an experiment of a paper: its sweeps, one after the other."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from pipelines.papers import sources
from pipelines.papers.catalogue import Preset
from pipelines.papers.sweeps import Hyper, PaperSweep, paper_sweeps, sweep_settings
from pipelines.search.describe import describe
from pipelines.settings import SweepSettings
from pipelines.sweep.plan import plan
from recloss.errors import InputError


def run_paper(
    preset: Preset,
    *,
    hyper: Hyper,
    data: Sequence[str] | None,
    backbones: Sequence[str] | None,
    losses: Sequence[str] | None,
    seeds: int,
    concurrent: int | None,
    raw: Mapping[str, Path],
    dry_run: bool,
    storage: Path,
    tracking_uri: str,
    spaces: Path | None,
    console: Console,
) -> int:
    """Plan every sweep before the first is run, then run them; the exit code of the first that is not complete, or 0.

    Raises:
        InputError: for a mistake in the options or a preset, or data that are missing, before anything is trained.
    """
    say = partial(console.print, markup=False, soft_wrap=True)
    sources.check_given(preset, raw)
    wanted = paper_sweeps(preset, hyper, data, backbones, losses)
    if data is None:
        wanted = _ready(preset, wanted, raw, say)
    planned: list[SweepSettings] = []
    for sweep in wanted:
        settings = sweep_settings(
            preset, sweep, hyper=hyper, seeds=seeds, storage=storage, raw=raw, concurrent=concurrent, missing=dry_run
        )
        cells = plan(settings, {}, spaces)
        planned.append(settings)
        if dry_run:
            say(f"sweep {settings.name}")
            describe(settings, cells, console)
    if dry_run:
        return 0
    from pipelines.report import log_outcome, make_report
    from pipelines.sweep.run import run_sweep

    for number, settings in enumerate(planned, start=1):
        say(f"sweep {number} of {len(planned)}: {settings.name}")
        ending = run_sweep(settings, storage=storage, tracking_uri=tracking_uri, spaces=spaces, console=console)
        if not ending:
            say(f"{ending.message}; nothing is lost. To go on, give the same command again")
            return ending.code
        log_outcome(tracking_uri, make_report(tracking_uri, settings.name))
    say(f"to compare: recloss paper report {preset.id} --storage {storage}")
    return 0


def _ready(preset: Preset, sweeps: list[PaperSweep], raw: Mapping[str, Path], say: partial[None]) -> list[PaperSweep]:
    """Those whose raw files are here; the others are told."""
    states = {name: sources.state(preset, name, raw) for name in dict.fromkeys(sweep.data for sweep in sweeps)}
    for name, state in states.items():
        if state != "ready":
            how = "ask for it by --data" if state == "fetch" else f"get {sources.how_to_get(preset, name)}"
            say(f"{name}: {'not downloaded yet' if state == 'fetch' else state}, left out; {how}")
    ready = [sweep for sweep in sweeps if states[sweep.data] == "ready"]
    if not ready:
        raise InputError(f"{preset.id}: none of its data sets is here; set {sources.FOLDER}, or give --raw NAME=PATH")
    return ready
