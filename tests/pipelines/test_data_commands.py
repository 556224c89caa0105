"""`recloss prepare` and `recloss data`: every setting can be given, what is printed, what a mistake answers."""

import importlib.util
import json
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from pipelines.commands import run
from pipelines.commands.prepare import GROUPS, prepare
from pipelines.prepare import load
from pipelines.prepare.readers import FORMATS
from pipelines.settings import EngineSettings, Noise, PrepareSettings

DOCS = Path(__file__).resolve().parents[2] / "docs"

LOG = "user,item,rating,timestamp\n" + "".join(
    f"u{user},i{item},{(user * item) % 5 + 1},{10**9 + (37 * user + 91 * item) % 997}\n"
    for user in range(12)
    for item in range(user % 3, 24, 2)
)


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


def made(*options):
    """Prepare, and return the settings that the manifest records."""
    names = ["--rating", "rating", "--timestamp", "timestamp"]
    arguments = ["prepare", "--raw", "log.csv", "--format", "csv", *names, *options, "--out", "out"]
    assert run(arguments) == 0
    return json.loads(Path("out/manifest.json").read_text())["settings"]


def refused(capsys, *arguments):
    assert run([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


def test_every_setting_has_an_option_in_a_group_and_the_other_way_round():
    options = {parameter.name for parameter in prepare.params}
    columns = set(type(PrepareSettings().columns).model_fields)
    settings = (set(PrepareSettings.model_fields) - {"columns"}) | columns | set(EngineSettings.model_fields)
    assert options == settings | {"raw", "out", "config"}
    assert set(GROUPS) == options
    for parameter in prepare.params:
        assert parameter.opts == [f"--{parameter.name.replace('_', '-')}"]


def test_the_help_names_every_group_and_format(capsys):
    assert run(["prepare", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for title in {*GROUPS.values(), "Formats"}:
        assert f"{title}:" in lines
    listed = [line.split()[0] for line in lines[lines.index("Formats:") :] if line.startswith("  ") and line[2] != " "]
    assert listed == list(FORMATS)


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        (["--k-core", "2"], {"k_core": 2}),
        (["--k-core", "users=2,items=3"], {"k_core": {"users": 2, "items": 3}}),
        (["--k-core", " items = 3 "], {"k_core": {"users": 1, "items": 3}}),
        (["--min-rating", "2.5", "--keep", "last"], {"min_rating": 2.5, "keep": "last"}),
        (["--rounding", "int", "--test-ratio", "0.3"], {"rounding": "int", "test_ratio": 0.3}),
        (["--split", "temporal", "--gap-ratio", "0.1"], {"split": "temporal", "gap_ratio": 0.1}),
        (["--split", "leave_last", "--test-last", "2"], {"split": "leave_last", "test_last": 2}),
        (["--noise", "false_positives"], {"noise": {"kind": "false_positives", "ratio": 0.1, "seed": 0}}),
        (["--noise", "false_positives=0.2,seed=3"], {"noise": {"kind": "false_positives", "ratio": 0.2, "seed": 3}}),
        (
            ["--noise", "false_negative_pool=0.2,keep_as_positive=true"],
            {"noise": {"kind": "false_negative_pool", "ratio": 0.2, "seed": 0, "keep_as_positive": True}},
        ),
        (["--workers", "1", "--engine", "local", "--on-bad-row", "skip"], {"on_bad_row": "skip"}),
    ],
)
def test_an_option_arrives_as_the_setting_of_its_name(log, options, recorded):
    settings = made(*options)
    for name, value in recorded.items():
        assert settings[name] | value == settings[name] if name == "noise" else settings[name] == value


def test_a_file_of_settings_is_read_and_options_win(log, capsys):
    (log.parent / "prepare.yaml").write_text(
        "format: csv\ncolumns: {rating: rating, timestamp: stars}\nmin_rating: 2\nk_core: 3\n"
    )
    command = ["prepare", "--raw", "log.csv", "--config", "prepare.yaml", "--out", "out"]
    assert "stars" in refused(capsys, *command)
    assert run([*command, "--timestamp", "timestamp", "--k-core", "users=2,items=2"]) == 0
    settings = json.loads(Path("out/manifest.json").read_text())["settings"]
    assert (settings["min_rating"], settings["k_core"]) == (2.0, 2)
    assert settings["columns"] == {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp"}
    for text, message in (
        ("k_core: no", "prepare.yaml: k_core"),
        ("k_cor: 5", "did you mean 'k_core'?"),
        ("[1, 2]", "prepare.yaml: expected a mapping"),
        ("a: [", "prepare.yaml, line 1: not valid YAML"),
    ):
        (log.parent / "prepare.yaml").write_text(text)
        assert message in refused(capsys, *command)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k-core", "users=2,five"], "--k-core 'users=2,five': expected NAME=VALUE, such as users=5,items=10"),
        (["--k-core", "user=2"], "k_core: unknown setting 'user'; did you mean 'users'?"),
        (["--noise", "false_positive=0.1"], "noise.kind: Input should be 'false_positives'"),
        (["--noise", "false_positives=2"], "noise.ratio: Input should be less than 1, got '2'"),
        (["--noise", "false_positives=0.1,3"], "--noise '3': expected NAME=VALUE"),
        (["--gap-ratio", "0.1"], "gap_ratio has no effect with split 'iid', only with temporal"),
        (["--on-bad-row", "drop"], "on_bad_row: Input should be 'error' or 'skip', got 'drop'"),
        (["--workers", "0"], "workers: Input should be greater than or equal to 1"),
        (["--memory", "much"], "memory: "),
        (["--engine", "spark"], "engine: Input should be 'auto', 'local' or 'ray', got 'spark'"),
        (["--format", "cvs"], "unknown format 'cvs'; did you mean 'csv'?"),
        (["--hash-ids"], "RECLOSS_HASH_KEY"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(log, capsys, options, message, monkeypatch):
    monkeypatch.delenv("RECLOSS_HASH_KEY", raising=False)
    arguments = ["prepare", "--raw", "log.csv", "--out", "out", *options]
    assert message in refused(capsys, *arguments)
    assert [path.name for path in log.parent.iterdir()] == ["log.csv"]


def test_hashed_ids_are_printed_nowhere(log, capsys, monkeypatch):
    monkeypatch.setenv("RECLOSS_HASH_KEY", "a key that is long enough")
    log.write_text(LOG.replace("u3,", "SECRET,"))
    made("--hash-ids")
    assert run(["data", "inspect", "out"]) == 0
    assert run(["data", "verify", "out", "--raw", "log.csv"]) == 0
    assert "SECRET" not in capsys.readouterr().out + Path("out/manifest.json").read_text()


def test_inspect_and_verify_on_the_command_line(log, capsys):
    made("--k-core", "2")
    capsys.readouterr()
    assert run(["data", "inspect", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"out: fingerprint {load(log.parent / 'out').fingerprint}"
    for title in ("how it was made", "sizes", "splits", "items by number of interactions"):
        assert title in lines
    assert run(["data", "verify", "out", "out"]) == 0
    assert capsys.readouterr().out.count("as its manifest says") == 2
    shard = log.parent / "out" / "test" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert run(["data", "verify", "out"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  test" in printed
    assert "to mend: test, fingerprint" in printed
    assert "not a prepared dataset" in refused(capsys, "data", "verify", ".")
    assert "part-00000.parquet: not a complete Parquet file" in refused(capsys, "data", "inspect", "out")


def test_the_list_of_public_data_sets(capsys):
    assert run(["data", "list"]) == 0
    printed = capsys.readouterr().out
    names = [line.split()[0] for line in printed.splitlines()]
    assert {"ml-100k", "amazon-2014-beauty", "gowalla", "yelp"} <= set(names)
    assert "…" not in printed
    assert run(["data", "list", "ml-1m"]) == 0
    about = capsys.readouterr().out
    for what in ("terms: for research", "cite: F. M. Harper", "SHA-256 a6898adb", "in it ml-1m/ratings.dat"):
        assert what in about
    assert "did you mean 'ml-1m'?" in refused(capsys, "data", "list", "ml1m")


def test_what_was_put_there_by_hand_is_prepared_as_fetch_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "diginetica"
    folder.mkdir(parents=True)
    rows = [f"{session};NA;{item};{item};2016-05-09" for session in range(9) for item in range(session, session + 9)]
    (folder / "train-item-views.csv").write_text("\n".join(["sessionId;userId;itemId;timeframe;eventdate", *rows]))
    assert run(["data", "fetch", "diginetica"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("to prepare it: recloss ")
    assert command.startswith("prepare --raw ")
    assert run(command.split()) == 0
    assert load(tmp_path / "data" / "diginetica").n_users == 9


def test_ratings_with_the_item_first_are_not_turned_round(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"B{item:04},A{user},5.0,{10**9 + item}" for user in range(9) for item in range(user, user + 9)]
    Path("ratings.csv").write_text("\n".join(lines) + "\n")
    assert run(["prepare", "--raw", "ratings.csv", "--format", "amazon-ratings-2018", "--out", "out"]) == 0
    for side, first in (("users", "A0"), ("items", "B0000")):
        assert pq.read_table(f"out/{side}.parquet")["id"][0].as_py() == first


class TestPage:
    """docs/data.md."""

    PAGE = DOCS / "data.md"
    CHOICES = ((PrepareSettings, "split"), (Noise, "kind"))
    NAMED_AS_SETTINGS = ("--test-ratio", "--valid-ratio", "--gap-ratio", "--test-last", "--valid-last")

    def test_it_names_everything_there_is(self):
        page = self.PAGE.read_text()
        splits, kinds = (get_args(model.model_fields[name].annotation) for model, name in self.CHOICES)
        for name in (*FORMATS, *splits):
            assert f"| `{name}` |" in page
        for name in (*kinds, *(parameter.opts[0] for parameter in prepare.params)):
            assert name in page or name in self.NAMED_AS_SETTINGS, name

    def test_its_table_is_what_the_real_data_sets_give(self, recloss_data):
        """Every count equals the known one, and every line is in the page."""
        spec = importlib.util.spec_from_file_location("make_data_table", DOCS / "make_data_table.py")
        maker = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(maker)
        lines, wrong = zip(*maker.rows(recloss_data), strict=True)
        assert [problem for problems in wrong for problem in problems] == []
        assert maker.BEGIN + maker.HEAD + "".join(lines) + maker.END in self.PAGE.read_text()
