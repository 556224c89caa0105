"""A manifest in words: what was done to a log, and how two preparations differ."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pipelines.prepare.words_of_tasks import TELL_GRAPH, TELL_LISTS
from pipelines.settings import PrepareSettings

Facts = Mapping[str, Any]
"""A manifest, or a step or the settings of one."""


def told(manifest: Facts) -> list[str]:
    """What was done, a sentence per step, with what each step left."""
    settings, steps = _settings(manifest), manifest["steps"]
    files = ", ".join(f"{s['name']} ({s['bytes']:,} bytes, SHA-256 {s['sha256'][:12]})" for s in manifest["sources"])
    sentences = [f"Prepared from {files}."]
    for before, step in zip([None, *steps], steps, strict=False):
        tell = _TELL.get(step["step"], _other)
        sentences += [tell(step, before or step, settings)]
    if settings.get("hash_ids"):
        sentences.append(f"User ids are keyed hashes (check value of the key: {manifest['hash_key_check']}).")
    return [sentence for sentence in sentences if sentence]


def differences(one: Facts, other: Facts) -> list[str]:
    """What two manifests do not have in common, such as ``k_core 5 against 10``; else what is left to say."""
    found = [
        f"{name} {in_words(first)} against {in_words(second)}"
        for name, first, second in _pairs(_settings(one), _settings(other))
        if first != second
    ]
    files = [{source["name"]: source["sha256"] for source in manifest["sources"]} for manifest in (one, other)]
    if files[0] != files[1]:
        changed = sorted(name for name, first, second in _pairs(*files) if first != second)
        found.append(f"other raw files ({', '.join(changed)})")
    if not found:
        sizes = [(name, a, b) for name, a, b in _pairs(one["sizes"], other["sizes"]) if a != b]
        found = [f"{a:,} against {b:,} {name}" for name, a, b in sizes] or ["neither in settings nor in raw files"]
    return found


def in_words(value: Any) -> str:
    """A setting's value without the marks of its type."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {in_words(part)}" for key, part in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def day(seconds: int) -> str:
    """A timestamp as UTC: ``1997-09-20 03:05:10``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _settings(manifest: Facts) -> dict[str, Any]:
    """The settings of a manifest; those it does not state are at their defaults."""
    stated = dict(manifest["settings"])
    task = {"task": stated.get("task", "pairs")}
    return task | PrepareSettings.model_validate(task).content() | stated


def _pairs(one: Facts, other: Facts) -> list[tuple[str, Any, Any]]:
    return [(name, one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other])]


def _left(step: Facts, before: Facts) -> str:
    return f"{before['rows']:,} -> {step['rows']:,} interactions, {step['users']:,} users, {step['items']:,} items"


def _parts(step: Facts) -> str:
    names = {"train": "train", "valid": "validation", "test": "test", "pool": "pool"}
    return ", ".join(f"{name} {step[part]:,}" for part, name in names.items() if part in step)


def _read(step: Facts, before: Facts, settings: Facts) -> str:
    refused = f"; {step['refused']:,} malformed rows left out" if step.get("refused") else ""
    counts = f"{step['rows']:,} interactions of {step['users']:,} users with {step['items']:,} items"
    return f"Read {counts} ({step['format']}){refused}."


def _rating(step: Facts, before: Facts, settings: Facts) -> str:
    return f"Ratings below {step['min_rating']:g} dropped: {_left(step, before)}."


def _distinct(step: Facts, before: Facts, settings: Facts) -> str:
    if step["rows"] == before["rows"]:
        return "No pair is repeated."
    earliest = (
        "the earliest" if settings.get("task") == "sequence" else "the earliest, of equally early ones the lowest rated"
    )
    kept = {"any": earliest, "first": "the first", "last": "the last"}
    return f"Of repeated pairs one was kept ({kept[settings['keep']]}): {_left(step, before)}."


def _k_core(step: Facts, before: Facts, settings: Facts) -> str:
    k = step["k"] if isinstance(step["k"], dict) else {"users": step["k"], "items": step["k"]}
    sides = [f"{side} with fewer than {least}" for side, least in k.items() if least > 1]
    if not sides:
        return ""
    passes = f"{step['passes']} pass{'' if step['passes'] == 1 else 'es'}"
    return f"Dropped until there were none: {' and '.join(sides)} interactions ({passes}): {_left(step, before)}."


def _index(step: Facts, before: Facts, settings: Facts) -> str:
    order = {"integer": "as integers", "bytes": "byte by byte"}
    users, items = (order[step[f"{side}_order"]] for side in ("user", "item"))
    return f"Numbered in the order of the original ids: users {users}, items {items}."


def _order(step: Facts, before: Facts, settings: Facts) -> str:
    repeated = f"{step['repeated']:,} interactions repeat an earlier pair of their sequence"
    return f"Put in order, {step['tied']:,} at the time of the one before; {repeated}."


def _split(step: Facts, before: Facts, settings: Facts) -> str:
    return f"{_RULE[settings['split']](step, settings)}: {_parts(step)}."


def _iid(step: Facts, settings: Facts) -> str:
    test = f"test ceil({_percent(settings['test_ratio'])}) of a user's interactions, {_validation(settings)}"
    return f"Split per user at random (seed {settings['split_seed']}): {test}"


def _temporal(step: Facts, settings: Facts) -> str:
    gap = f", the {step['left_out']:,} before them are left out" if step["left_out"] else ""
    test = f"the last {_percent(settings['test_ratio'])} of all interactions (from {day(step['test_from'])}) are test"
    return f"Split at one time for all: {test}{gap}; {_validation(settings)} (at random, seed {settings['split_seed']})"


def _leave_last(step: Facts, settings: Facts) -> str:
    last = f"the last {settings['test_last']} of each user are test, the {settings['valid_last']} before validation"
    ties = f"equal times decided for {step['users_cut_by_ties']:,} users"
    short = f"{step['users_too_short']:,} have too few interactions and stay in train"
    return f"Split by order ({step['order']}): {last}; {ties}, {short}"


def _popularity(step: Facts, settings: Facts) -> str:
    test = f"{_percent(settings['test_ratio'])} of all, an item drawn uniformly, then one of its users"
    return f"Split by popularity shift (seed {settings['split_seed']}): test {test}; {_validation(settings)}"


def _given(step: Facts, settings: Facts) -> str:
    valid = (
        "" if step["validation"] == "given" else f"; {_validation(settings)} (at random, seed {settings['split_seed']})"
    )
    catalogue = {
        "listed": "the listed ids and those that occur",
        "occurring": "the ids that occur",
        "range": "0 to the largest id",
    }
    return f"Split as given; catalogue: {catalogue[settings['ids']]}{valid}"


def _validation(settings: Facts) -> str:
    valid = _percent(settings["valid_ratio"])
    rule = f"ceil({valid})" if settings["rounding"] == "ceil" else f"max(int({valid}), 1)"
    return f"validation {rule} of the rest"


def _unseen(step: Facts, before: Facts, settings: Facts) -> str:
    if not step["dropped_users"] + step["dropped_items"]:
        return "Every user and item has a training interaction."
    ids = f"{step['dropped_users']:,} users and {step['dropped_items']:,} items without training interaction"
    return f"Dropped {ids}, and with them {step['dropped_test']:,} test interactions: {_parts(step)}."


def _noise(step: Facts, before: Facts, settings: Facts) -> str:
    ratio = _percent(step["ratio"])
    what = f"added false positives to train, ceil({ratio}) of each user's training interactions"
    if step["kind"] == "false_negative_pool":
        way = "copied" if step["keep_as_positive"] else "moved"
        what = f"{way} {ratio} of the training interactions to a pool of false negatives"
    return f"Noise (seed {step['seed']}): {what}: {_parts(step)}."


def _other(step: Facts, before: Facts, settings: Facts) -> str:
    return f"{step['step']}: {_left(step, before)}."


def _percent(ratio: float) -> str:
    return f"{100 * ratio:g} %"


_RULE: dict[str, Callable[[Facts, Facts], str]] = {
    "iid": _iid,
    "temporal": _temporal,
    "leave_last": _leave_last,
    "popularity": _popularity,
    "given": _given,
}
_TELL: dict[str, Callable[[Facts, Facts, Facts], str]] = {
    "read": _read,
    "rating": _rating,
    "distinct": _distinct,
    "k_core": _k_core,
    "index": _index,
    "order": _order,
    "split": _split,
    "unseen": _unseen,
    "noise": _noise,
    **TELL_LISTS,
    **TELL_GRAPH,
}
