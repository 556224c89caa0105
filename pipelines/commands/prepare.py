"""`recloss prepare`: from a raw log to a prepared dataset."""

from pathlib import Path
from typing import Any

import click

from pipelines.commands.base import recloss
from recloss.errors import InputError

COLUMNS = ("user", "item", "rating", "timestamp")
ENGINE = ("engine", "workers", "memory")
WORDS = {"rank": ("queries", "documents"), "link": ("nodes", "nodes")}
"""What users and items are in a task, where they are not called so."""
LAST = "Where it runs, where it ends"


class Prepare(click.Command):
    """Shows its options in the order of the steps, and the formats that there are."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A heading per group of options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                groups.setdefault(GROUPS.get(parameter.name or "", LAST), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What each format is."""
        from pipelines.prepare.readers import FORMATS

        with formatter.section("Formats"):
            formatter.write_dl(list(FORMATS.items()))


GROUPS = {
    name: title
    for title, names in {
        "Log": ("raw", "config", "task", "format", *COLUMNS, "timestamp_unit", "on_bad_row", "hash_ids"),
        "Filters": ("min_rating", "keep", "k_core"),
        "Split": (
            *("split", "test_ratio", "valid_ratio", "rounding", "gap_ratio"),
            *("test_last", "valid_last", "split_seed", "ids"),
        ),
        "Noise": ("noise",),
        "Graphs": ("negatives", "negatives_per_edge"),
        LAST: (*ENGINE, "out"),
    }.items()
    for name in names
}


def option(name: str, value: str, help_: str) -> Any:
    """An option named as its setting, without a default of its own."""
    return click.option(f"--{name.replace('_', '-')}", name, metavar=value, help=help_)


@recloss.command(cls=Prepare)
@click.option("--raw", type=click.Path(path_type=Path), required=True, help="A raw log: a file, folder or zip.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="YAML file of the settings below; options given here win."
)
@option("task", "TASK", "What is prepared: pairs, sequence, rank or link.  [default: pairs]")
@option("format", "NAME", "How the log is written: one of the formats below, or auto.  [default: auto]")
@option("user", "COLUMN", "Column of user ids (csv, json, parquet).  [default: user]")
@option("item", "COLUMN", "Column of item ids.  [default: item]")
@option("rating", "COLUMN", "Column of ratings, if there is one.")
@option("timestamp", "COLUMN", "Column of timestamps, if there is one.")
@option("timestamp_unit", "UNIT", "Unit of timestamps: auto, s or ms.  [default: auto]")
@option(
    "on_bad_row", "WHAT", "At a malformed row: error, or skip (counted and sampled in bad_rows.csv).  [default: error]"
)
@click.option(
    "--hash-ids", is_flag=True, default=None, help="Replace user ids by keyed hashes; the key is in RECLOSS_HASH_KEY."
)
@option("min_rating", "R", "Drop interactions with a lower rating.")
@option(
    "keep",
    "WHICH",
    "Which of repeated pairs stays: any, or by time first or last; of sequences all.  [default: any; all]",
)
@option("k_core", "K", "Least interactions of users and items, iterated: 5, or users=5,items=10.  [default: 1]")
@option("split", "RULE", "iid, temporal, leave_last, popularity or given.  [default: iid; of sequences leave_last]")
@option("test_ratio", "R", "Part that is test (iid, temporal, popularity).  [default: 0.2]")
@option("valid_ratio", "R", "Part of each user's rest that is validation (all but leave_last).  [default: 0.1]")
@option("rounding", "RULE", "Of validation: ceil, or int (but at least 1) as SL@K and PSL do.  [default: ceil]")
@option("gap_ratio", "R", "Part left out before test (temporal).  [default: 0]")
@option("test_last", "N", "How many of each user's last are test (leave_last).  [default: 1]")
@option("valid_last", "N", "How many before these are validation (leave_last).  [default: 1]")
@option("split_seed", "N", "Seed of the split.  [default: 0]")
@option("ids", "WHICH", "Catalogue of a given split: listed, occurring or range.  [default: listed]")
@option(
    "noise",
    "KIND=R",
    "false_positives=0.1 or false_negative_pool=0.1, with ,seed=1 or ,keep_as_positive=true after it.",
)
@option("negatives", "WHICH", "What held-out edges are ranked against (link): random or hard.  [default: random]")
@option("negatives_per_edge", "N", "How many of them each has (link).  [default: 500]")
@option("engine", "NAME", "auto, local (threads) or ray.  [default: auto, by size]")
@option("workers", "N", "Threads, or CPUs of a local Ray.  [default: all]")
@option(
    "memory",
    "SIZE",
    "Object store of a local Ray, such as 4GB; what does not fit is spilled to disk.  [default: Ray's]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the prepared dataset.")
def prepare(raw: Path, config: Path | None, out: Path, **options: Any) -> None:
    """Turn a raw log into a prepared dataset: check, filter, de-duplicate, k-core, index, split."""
    from pipelines.prepare import prepare as prepare_dataset
    from pipelines.settings import EngineSettings, PrepareSettings, parse, read_yaml

    given = {name: value for name, value in options.items() if value is not None}
    engine = parse(EngineSettings, {name: given.pop(name) for name in ENGINE if name in given}, "recloss prepare")
    columns = {role: given.pop(role) for role in COLUMNS if role in given}
    if "k_core" in given and "=" in given["k_core"]:
        given["k_core"] = _named("--k-core", given["k_core"], "users=5,items=10")
    if "noise" in given:
        given["noise"] = _noise(given["noise"])
    raw_settings = read_yaml(config) if config else {}
    if isinstance(raw_settings, dict):
        raw_settings = raw_settings | given | {"columns": (raw_settings.get("columns") or {}) | columns}
    settings = parse(PrepareSettings, raw_settings, str(config) if config else "recloss prepare")
    manifest = prepare_dataset(
        raw, out, settings, engine=engine.engine, workers=engine.workers, memory=engine.memory, on_step=click.echo
    )
    sizes = manifest["sizes"]
    users, items = WORDS.get(settings.task, ("users", "items"))
    counts = {users: sizes["users"], items: sizes["items"]}  # the nodes of a graph are told once
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    click.echo(f"{out}: {told}, fingerprint {manifest['fingerprint'][:12]}")


def _noise(text: str) -> dict[str, str]:
    """``false_positives=0.1,seed=1`` as settings: the first name is the kind, its value the ratio."""
    kind, *others = text.split(",")
    kind, equals, ratio = kind.partition("=")
    noise = {"kind": kind.strip()} | ({"ratio": ratio} if equals else {})
    return noise | (_named("--noise", ",".join(others), "false_positives=0.1,seed=1") if others else {})


def _named(option: str, text: str, example: str) -> dict[str, str]:
    """``users=5,items=10`` as settings."""
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and equals for name, equals, _ in parts):
        raise InputError(f"{option} {text!r}: expected NAME=VALUE, such as {example}")
    return {name.strip(): value.strip() for name, _, value in parts}
