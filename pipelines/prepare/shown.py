"""An inspection as a terminal shows it."""

from collections.abc import Iterable, Mapping, Sequence

from pipelines.prepare.inspect import Inspection, Spread
from pipelines.prepare.words import day, told

BAR = 40
"""Characters of the longest bar."""
NAMES = {"train": "train", "valid": "validation", "test": "test", "pool": "pool"}


def shown(found: Inspection) -> list[str]:
    """The lines: how it was made, sizes, spread, what the splits share, popularity. No user or item is named."""
    return [
        f"{found.path}: fingerprint {found.manifest['fingerprint']}",
        *section("how it was made", told(found.manifest)),
        *section("sizes", _sizes(found)),
        *section("interactions (all splits)", _spreads(found)),
        *section("splits", _splits(found)),
        *section("items by number of interactions", histogram(found.popularity, "items", "interactions")),
    ]


def section(title: str, lines: Iterable[str]) -> list[str]:
    """An empty line, the title, and the lines below it."""
    return ["", title, *(f"  {line}".rstrip() for line in lines)]


def _sizes(found: Inspection) -> list[str]:
    sizes = found.manifest["sizes"]
    total = sum(rows for split, rows in found.rows.items() if split != "pool")
    rows = [["", "interactions", "users", "first", "last"]]
    for split, count in found.rows.items():
        times = [day(time) for time in found.times.get(split, ())] or ["", ""]
        users = f"{found.users_of[split]:,}" if split in found.users_of else ""
        rows.append([NAMES[split], f"{count:,}", users, *times])
    whole = f"{sizes['users']:,} users, {sizes['items']:,} items, {total:,} interactions, density {found.density:.5f}"
    return [whole, *aligned(rows)]


def _spreads(found: Inspection) -> list[str]:
    return spreads({"per user": found.users, "per item": found.items})


def spreads(found: Mapping[str, Spread]) -> list[str]:
    """A line per spread, with its title."""
    heading = ["", *next(iter(found.values())).quantiles, "none", "only one", "Gini"]
    return aligned([heading, *(_spread(title, spread) for title, spread in found.items())])


def _spread(title: str, spread: Spread) -> list[str]:
    """Title, quantiles with the mean, how many have none and only one, and the Gini coefficient."""
    n = spread.size
    shares = [f"{part:,} ({part / n:.1%})" for part in (spread.none, spread.single)]
    quantiles = (f"{value:,.2f}".removesuffix(".00") for value in spread.quantiles.values())
    return [title, *quantiles, *shares, f"{spread.gini:.3f}"]


def _splits(found: Inspection) -> list[str]:
    shared = sum(found.shared.values())
    wrong = shared > 0 and found.manifest.get("task") != "sequence"
    lines = [f"pairs in two splits: {shared:,}{' (must be 0: prepare it again)' if wrong else ''}"]
    for split, unseen in found.unseen.items():
        who = f"{unseen.users:,} users and {unseen.items:,} items"
        lines.append(f"{NAMES[split]}: {who} without a training interaction, {unseen.rows:,} interactions with them")
    return lines


def histogram(bins: Sequence[tuple[int, int, int, int]], things: str, parts: str) -> list[str]:
    """Bins of `popularity`: how many things are in each, what part of all they have, and a bar."""
    longest, total = max(n for _, _, n, _ in bins), sum(part for *_, part in bins)
    rows = [["", things, f"share of {parts}", ""]]
    for low, high, n, part in bins:
        bar = "█" * max(round(BAR * n / longest), int(n > 0))
        rows.append([f"{low:,}" if low == high else f"{low:,}-{high:,}", f"{n:,}", f"{part / total:.1%}", bar])
    return aligned(rows, left=(0, 3))


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Columns of equal width, numbers to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            f"{cell:<{w}}" if at in left else f"{cell:>{w}}"
            for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
