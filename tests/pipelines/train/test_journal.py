"""The journal of a trial: whole lines, whatever happened between."""

import pytest

from pipelines.train import journal
from recloss.errors import InputError


def test_events_come_back_in_order(tmp_path):
    assert journal.read(tmp_path) == []
    for number in range(3):
        journal.append(tmp_path, {"event": "valid", "epoch": number})
    assert [event["epoch"] for event in journal.read(tmp_path)] == [0, 1, 2]
    assert journal.last(journal.read(tmp_path), "valid") == {"event": "valid", "epoch": 2}
    assert journal.last(journal.read(tmp_path), "finish") is None


def test_a_line_cut_short_is_no_event_and_does_not_spoil_the_next(tmp_path):
    journal.append(tmp_path, {"event": "start"})
    with open(tmp_path / journal.FILE, "a") as file:
        file.write('{"event": "val')
    assert journal.read(tmp_path) == [{"event": "start"}]
    journal.append(tmp_path, {"event": "fail"})
    assert journal.read(tmp_path) == [{"event": "start"}, {"event": "fail"}]


def test_damage_before_the_end_names_the_line(tmp_path):
    (tmp_path / journal.FILE).write_text('{"event": "start"}\nrubbish\n{"event": "finish"}\n')
    with pytest.raises(InputError, match=r"journal\.jsonl, line 2: not a JSON event"):
        journal.read(tmp_path)


def test_rewriting_replaces_everything(tmp_path):
    journal.append(tmp_path, {"event": "fail"})
    journal.rewrite(tmp_path, [{"event": "start"}])
    assert journal.read(tmp_path) == [{"event": "start"}]
    assert [path.name for path in tmp_path.iterdir()] == [journal.FILE]
