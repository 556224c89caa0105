"""The order in which tasks start, and what a task that was cut off holds up."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.sweep.queue import Queue


@dataclass
class Fake:
    name: str
    done: bool = False
    failed: bool = False

    @property
    def folder(self) -> Path:
        return Path("/f") / self.name


def make(*lines):
    """A queue of lines of batches of tasks, the tasks by name, and those that were done before they started."""
    skipped, tasks = [], {t.name: t for line in lines for batch in line for t in batch}
    return Queue([iter(line) for line in lines], lambda task: skipped.append(task.name)), tasks, skipped


def names(queue, most=9):
    found = []
    while len(found) < most and (task := queue.next()):
        found.append(task.name)
    return found


def end(queue, task, **how):
    for key, value in how.items():
        setattr(task, key, value)
    queue.ended(task.folder)


def test_a_batch_waits_for_the_one_before_it_and_earlier_lines_go_first():
    queue, tasks, _ = make([[Fake("a1"), Fake("a2")], [Fake("a3")]], [[Fake("b1")], [Fake("b2")]])
    assert names(queue) == ["a1", "a2", "b1"]
    assert queue.waits
    end(queue, tasks["a1"], done=True)
    assert names(queue) == []
    end(queue, tasks["a2"], failed=True)
    end(queue, tasks["b1"], done=True)
    assert names(queue) == ["a3", "b2"], "a failure is an end too"
    assert not queue.finished
    end(queue, tasks["a3"], done=True)
    end(queue, tasks["b2"], done=True)
    assert names(queue) == []
    assert queue.finished
    assert not queue.waits


def test_a_task_that_was_cut_off_holds_up_its_line_alone():
    queue, tasks, _ = make([[Fake("a1"), Fake("a2")], [Fake("a3")]], [[Fake("b1")], [Fake("b2")]])
    assert names(queue, most=1) == ["a1"]
    end(queue, tasks["a1"])
    assert names(queue) == ["a2", "b1"], "the others of its batch do not depend on it"
    end(queue, tasks["a2"], done=True)
    end(queue, tasks["b1"], done=True)
    assert names(queue) == ["b2"]
    end(queue, tasks["b2"], done=True)
    assert names(queue) == []
    assert not queue.waits
    assert not queue.finished


def test_tasks_are_looked_at_when_there_is_room_for_them():
    started = []

    def batch():
        for name in ("a1", "a2"):
            started.append(name)
            yield Fake(name)

    def line():
        yield batch()
        yield []
        yield [Fake("a3", done=True), Fake("a4", done=True)]

    skipped = []
    queue = Queue([line()], lambda task: skipped.append(task.name))
    first = queue.next()
    assert started == ["a1"]
    end(queue, first, done=True)
    end(queue, queue.next(), done=True)
    assert queue.next() is None
    assert skipped == ["a3", "a4"]
    assert queue.finished
