import os
import signal
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.prepare import blocks as do
from pipelines.prepare import engines
from pipelines.prepare.engines import LocalEngine, RayEngine, running
from recloss.errors import InputError


@dataclass(frozen=True)
class Made:
    """A source of made blocks; a part per block."""

    path: Path
    lists: tuple[tuple[tuple[int, int], ...], ...]
    split: str | None = None
    name: str = "made"
    fails: tuple[int, ...] = ()

    def parts(self, size):
        return [
            Made(self.path, (pairs,), self.split, self.name, (at,) if at in self.fails else ())
            for at, pairs in enumerate(self.lists)
        ]

    def blocks(self, on_bad_row):
        if self.fails:
            raise InputError(f"made, block {self.fails[0]}: {on_bad_row}\nno")
        for pairs in self.lists:
            yield pa.table(
                {
                    "user": pa.array([u for u, _ in pairs], pa.int32()),
                    "item": pa.array([i for _, i in pairs], pa.int32()),
                }
            )


@pytest.fixture(params=["local", "local, 1 worker", "ray"])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("ray_local")
        return RayEngine()
    return LocalEngine(1 if "1" in request.param else None)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "raw").write_text("raw")
    draw = np.random.default_rng(0)
    lists = tuple(tuple((int(u), int(i)) for u, i in draw.integers(0, [7, 5], (40, 2))) for _ in range(5))
    return Made(tmp_path / "raw", lists)


def rows(engine, blocks, *columns):
    return [
        list(zip(*(table[name].to_pylist() for name in columns or table.column_names), strict=True))
        for table in engine.tables(blocks)
    ]


def plus(block, number):
    return block.set_column(0, "user", pa.array(block["user"].to_numpy() + number))


def only(block, user):
    return block.filter(pa.array(block["user"].to_numpy() == user))


def count(block):
    return pa.table({"rows": [block.num_rows]})


def test_blocks_are_read_in_order_and_each_has_a_number_of_its_own(engine, source):
    blocks = engine.hold(engine.read([source, source], "error"))
    assert rows(engine, blocks, "user", "item") == [list(pairs) for pairs in source.lists * 2]
    numbers = [set(table["number"].to_pylist()) for table in engine.tables(blocks)]
    assert all(len(number) == 1 for number in numbers)
    assert len(set.union(*numbers)) == len(numbers)


def test_blocks_of_a_given_split_say_which(engine, source):
    test = Made(source.path, source.lists[:1], "test")
    splits = [
        set(table["split"].to_pylist())
        for table in engine.tables(engine.read([Made(source.path, source.lists, "train"), test], "error"))
    ]
    assert splits == [{0}] * 5 + [{2}]


def test_maps_follow_each_other_and_blocks_without_rows_are_left_out(engine, source):
    blocks = engine.hold(engine.read([source], "error"))
    later = engine.map(engine.map(blocks, plus, number=10), only, user=12)
    expected = [[(12, item) for user, item in pairs if user == 2] for pairs in source.lists]
    assert rows(engine, later, "user", "item") == [pairs for pairs in expected if pairs]
    assert rows(engine, later, "user", "item") == [pairs for pairs in expected if pairs], "may be used again"
    assert rows(engine, blocks, "user", "item")[0] == list(source.lists[0]), "and changes nothing"


@pytest.mark.parametrize("group_rows", [1, 30, 1000])
@pytest.mark.parametrize("key", ["user", "item"])
def test_grouping_keeps_every_row_and_no_key_is_in_two_blocks(engine, source, monkeypatch, group_rows, key):
    monkeypatch.setattr(engines, "GROUP_ROWS", group_rows)
    monkeypatch.setattr(engines, "BLOCK_BYTES", 1000)  # Ray must not cut a group to that size
    everything = [pair for pairs in source.lists for pair in pairs]
    at = do.SIDES.index(key)
    counts = np.bincount([pair[at] for pair in everything], minlength=9)
    blocks = engine.hold(engine.read([source], "error"))
    found = rows(engine, {"user": engine.by_user, "item": engine.by_item}[key](blocks, counts), "user", "item")
    assert Counter(pair for block in found for pair in block) == Counter(everything)
    keys = [{pair[at] for pair in block} for block in found]
    assert all(max(one) < min(other) for one, other in pairwise(keys))
    assert len(found) == 1 if group_rows == 1000 else len(found) > 2
    assert max(map(len, found)) <= group_rows + counts.max()


def test_groups_are_of_neighbours_and_about_equal():
    counts = np.array([0, 3, 3, 0, 100, 1, 1, 1, 0, 4])
    groups, n = engines._groups(counts)
    assert (groups.tolist(), n) == ([0] * 10, 1)
    big = np.full(1000, engines.GROUP_ROWS // 10)
    groups, n = engines._groups(big)
    assert n == 100 == len(set(groups.tolist()))
    assert np.all(np.diff(groups) >= 0)
    assert np.bincount(groups).max() <= 11


def test_the_first_mistake_of_a_log_is_one_line(engine, source):
    with pytest.raises(InputError) as raised:
        engine.hold(engine.read([Made(source.path, source.lists, fails=(3,))], "skip"))
    assert str(raised.value).splitlines()[0] == "made, block 3: skip"


def test_threads_report_the_first_mistake_in_the_order_of_the_log(source):
    with pytest.raises(InputError, match="block 1"):
        LocalEngine(4).read([Made(source.path, source.lists, fails=(1, 2, 4))], "error")


def test_a_file_that_disappears_is_one_line(engine, tmp_path, source):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read \(No such file or directory\)"):
        engine.hold(engine.read([Opened(source.path, source.lists, name="gone.csv")], "error"))


class Opened(Made):
    """A source that opens a file that is not there."""

    def parts(self, size):
        return [self]

    def blocks(self, on_bad_row):
        with open(self.path.with_name("not there")):
            yield from super().blocks(on_bad_row)


def die_once(block, marker):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return block
    os.kill(os.getpid(), signal.SIGKILL)
    return block


def test_a_ray_worker_that_is_killed_in_the_middle_changes_nothing(ray_local, tmp_path, source):
    engine = RayEngine()
    marker = tmp_path / "killed"
    blocks = engine.hold(engine.map(engine.read([source], "error"), die_once, marker=str(marker)))
    assert marker.exists()
    assert rows(engine, blocks, "user", "item") == [list(pairs) for pairs in source.lists]


def test_auto_chooses_by_the_size_of_the_raw_files(monkeypatch):
    monkeypatch.setattr(engines, "RayEngine", lambda: "ray")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with running("auto", engines.LOCAL_BYTES) as chosen:
        assert isinstance(chosen, LocalEngine)
    with running("auto", engines.LOCAL_BYTES + 1) as chosen:
        assert chosen == "ray"


@pytest.mark.parametrize("given", [{"workers": 2}, {"memory": 10**9}])
def test_workers_and_memory_of_a_ray_that_runs_already_are_refused(ray_local, given):
    with pytest.raises(InputError, match="a Ray is running already|one is running already"), running("ray", 1, **given):
        pass


def test_too_little_memory_for_ray_is_one_line(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"memory: 1,000 bytes are too few for Ray, it needs at least 78,643,200"):  # noqa: SIM117
        with running("ray", 1, memory=1000):
            pass
