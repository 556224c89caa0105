"""An inspection as a terminal shows it."""

from collections.abc import Iterable, Sequence

from pipelines.prepare.inspect import Inspection, Spread
from pipelines.prepare.words import day, told

BAR = 40
"""Characters of the longest bar."""
NAMES = {"train": "train", "valid": "validation", "test": "test", "pool": "pool"}


def shown(found: Inspection) -> list[str]:
    """The lines: how it was made, sizes, spread, what the splits share, popularity. No user or item is named."""
    return [
        f"{found.path}: fingerprint {found.manifest['fingerprint']}",
        *_section("how it was made", told(found.manifest)),
        *_section("sizes", _sizes(found)),
        *_section("interactions (all splits)", _spreads(found)),
        *_section("splits", _splits(found)),
        *_section("items by number of interactions", _popularity(found)),
    ]


def _section(title: str, lines: Iterable[str]) -> list[str]:
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
    return [whole, *_aligned(rows)]


def _spreads(found: Inspection) -> list[str]:
    rows = [["", *found.users.quantiles, "none", "only one", "Gini"]]
    rows += [_spread("per user", found.users), _spread("per item", found.items)]
    return _aligned(rows)


def _spread(title: str, spread: Spread) -> list[str]:
    n = spread.size
    shares = [f"{part:,} ({part / n:.1%})" for part in (spread.none, spread.single)]
    quantiles = (f"{value:,.2f}".removesuffix(".00") for value in spread.quantiles.values())
    return [title, *quantiles, *shares, f"{spread.gini:.3f}"]


def _splits(found: Inspection) -> list[str]:
    shared = sum(found.shared.values())
    lines = [f"pairs in two splits: {shared:,}{'' if shared == 0 else ' (must be 0: prepare it again)'}"]
    for split, unseen in found.unseen.items():
        who = f"{unseen.users:,} users and {unseen.items:,} items"
        lines.append(f"{NAMES[split]}: {who} without a training interaction, {unseen.rows:,} interactions with them")
    return lines


def _popularity(found: Inspection) -> list[str]:
    longest = max(items for _, _, items, _ in found.popularity)
    rows = [["", "items", "share of interactions", ""]]
    total = sum(interactions for *_, interactions in found.popularity)
    for low, high, items, interactions in found.popularity:
        bar = "█" * max(round(BAR * items / longest), int(items > 0))
        rows.append(
            [f"{low:,}" if low == high else f"{low:,}-{high:,}", f"{items:,}", f"{interactions / total:.1%}", bar]
        )
    return _aligned(rows, left=(0, 3))


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Columns of equal width, numbers to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            f"{cell:<{w}}" if at in left else f"{cell:>{w}}"
            for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
