"""The recorder's order, patience and honesty, on a store that is made up."""

import threading

import pytest
from mlflow.exceptions import MlflowException

from pipelines.tracking import Recorder, recorder
from recloss.errors import InputError


class Store:
    """A tracker whose store is down for the first ``down`` looks, and refuses what is in ``refuses``."""

    def __init__(self, down=0, refuses=()):
        self.down, self.refuses = down, refuses
        self.written, self.reread_count, self.seen = [], 0, 0
        self.gate = threading.Event()
        self.gate.set()

    def _answer(self):
        if self.down:
            self.down -= 1
            raise MlflowException("API request failed: http://user:secret@host:5000 refused")

    def reread(self):
        self._answer()
        self.reread_count += 1

    def driver_seen(self):
        self._answer()
        self.seen += 1

    def write(self, what):
        self.gate.wait(10)
        self._answer()
        if what in self.refuses:
            raise MlflowException(f"no {what} here")
        self.written.append(what)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(recorder, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(recorder, "_LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(recorder.Tracker, "driver_seen", Store.driver_seen)


def recorded(store, *names, seconds=10):
    said = []
    with Recorder(store, said.append) as making:
        for name in names:
            making.soon(name, lambda tracker, name=name: tracker.write(name))
        missing = making.flush(seconds)
    return said, missing


def test_writes_are_made_in_their_order():
    store = Store()
    assert recorded(store, *"abcabd") == ([], "")
    assert list(dict.fromkeys(store.written)) == list("abcd")
    assert store.seen == 1, "the driver tells of itself at once"


def test_of_writes_with_one_key_that_wait_the_last_is_made_in_the_place_of_the_first():
    store = Store()
    store.gate.clear()
    with Recorder(store, print) as making:
        for key, what in (("gate", "gate"), ("x", "x1"), ("y", "y1"), ("x", "x2")):
            making.soon(key, lambda tracker, what=what: tracker.write(what))
        store.gate.set()
        assert making.flush(10) == ""
    assert store.written == ["gate", "x2", "y1"]


def test_a_store_that_is_away_is_tried_until_it_answers_and_said_once():
    store = Store(down=7)
    said, missing = recorded(store, "a", "b")
    assert (store.written, missing) == (["a", "b"], "")
    assert len(said) == 2
    assert said[0].startswith("the tracking store does not answer (API request failed: http://")
    assert "secret" not in said[0]
    assert said[0].endswith("; the sweep goes on and records later")
    assert said[1] == "the tracking store answers again, and everything is recorded"


def test_a_store_that_stays_away_leaves_one_line():
    store = Store(down=10**9)
    said, missing = recorded(store, "a", "b", seconds=0.2)
    assert len(said) == 1
    assert missing.startswith("the tracking store does not answer (API request failed")
    assert missing.endswith("2 records are missing in it")
    assert store.written == []


def test_a_write_of_which_the_end_is_not_known_is_made_again_on_what_the_store_holds():
    store = Store(down=1)
    assert recorded(store, "a")[1] == ""
    assert store.reread_count == 1 or store.seen == 1


def test_what_the_store_refuses_holds_up_nothing_else():
    store = Store(refuses=("b",))
    said, missing = recorded(store, *"abc")
    assert (said, store.written) == ([], ["a", "c"])
    assert missing == "the tracking store refused 1 records, the first with: no b here"


def test_a_mistake_of_the_user_surfaces_in_the_driver():
    def mistake(tracker):
        raise InputError("journal.jsonl, line 3: not a JSON event")

    with Recorder(Store(), print) as making:
        making.soon("a", mistake)
        with pytest.raises(InputError, match="line 3"):
            making.flush(10)
