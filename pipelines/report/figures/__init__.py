"""Figures of a sweep, from what the tracking and artifact stores hold and nothing else.

Each module draws one, given the `Evidence`, or ``None`` where that does not hold what the figure needs.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.report.cells import REFERENCE
from pipelines.report.figures import (
    critical_difference,
    curves,
    distributions,
    epoch_time,
    gradients,
    heat_map,
    k_by_k,
    metric_by_k,
    noise,
    pareto,
    style,
    tau,
    thresholds,
)
from pipelines.report.figures.evidence import Evidence, read_evidence
from pipelines.report.ranks import rank
from recloss.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "Evidence", "FigureKind", "read_evidence", "svg_figures", "write_figures"]

FOLDER = "figures"
_DPI = 150


@dataclass(frozen=True)
class FigureKind:
    """A figure that a sweep may have."""

    title: str
    caption: str
    """What is shown, over what, and what not to conclude, with places for the names of `_words`."""
    draw: "Callable[[Evidence], Figure | None]"


_MODULES = (tau, heat_map, metric_by_k, k_by_k, curves, gradients, distributions, thresholds, noise, pareto, epoch_time)
FIGURES = {
    module.__name__.rpartition(".")[2]: FigureKind(module.TITLE, module.CAPTION, module.draw) for module in _MODULES
}
"""By name, in the order of a report. Critical-difference diagrams, one per backbone, come on top."""

_CRITICAL_DIFFERENCE = (
    "Critical difference, {backbone}",
    "Mean ranks of the losses over the data sets by test {metric}, mean over the confirmation seeds {confirm_seeds}. "
    "Bars join losses that cannot be told apart, which does not show them equal: with few data sets hardly any can be "
    "told apart.",
)


@dataclass(frozen=True)
class _Drawn:
    name: str
    title: str
    caption: str
    figure: "Figure"


def svg_figures(evidence: Evidence) -> dict[str, tuple[str, str, str]]:
    """All figures that the evidence allows, by name: title, caption, and an ``svg`` element for an HTML page."""
    with _styled():
        return {drawn.name: (drawn.title, drawn.caption, _element(drawn.figure)) for drawn in _all(evidence)}


def write_figures(evidence: Evidence, out: Path) -> list[Path]:
    """Write all figures that the evidence allows into ``figures/`` of a folder, as PNG and SVG.

    Raises:
        InputError: if the folder cannot be written.
    """
    files = []
    with _styled():
        for drawn in _all(evidence):
            for suffix, content in (("png", _png(drawn.figure)), ("svg", _svg(drawn.figure))):
                files.append((out / FOLDER / f"{drawn.name}.{suffix}", content))
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        for file, content in files:
            temporary = file.with_name(f".{file.name}.tmp")
            temporary.write_bytes(content)
            os.replace(temporary, file)
    except OSError as error:
        raise InputError(f"{out / FOLDER}: the figures cannot be written ({error.strerror})") from None
    return [file for file, _ in files]


def _all(evidence: Evidence) -> Iterator[_Drawn]:
    words = _words(evidence)
    for name, kind in FIGURES.items():
        if (figure := kind.draw(evidence)) is not None:
            yield _Drawn(name, kind.title, kind.caption.format(**words), figure)
    for ranking in rank(evidence.results, evidence.metric, evidence.mix_fingerprints):
        if (figure := critical_difference.draw(ranking)) is not None:
            title, caption = (text.format(**words, backbone=ranking.backbone_title) for text in _CRITICAL_DIFFERENCE)
            of = re.sub(r"\W", "_", ranking.backbone)
            yield _Drawn(f"critical_difference_{of}", title, caption, figure)


def _words(evidence: Evidence) -> dict[str, str]:
    """What captions say of a sweep."""
    settings = evidence.results.settings
    many = not all(style.looks(evidence).values())
    best = f"the {len(style.LOOKS)} losses with the best mean rank on test"
    references = any(cell.backbone == REFERENCE for group in evidence.panels.values() for cell in group)
    grey = ["reference models"] * references + [f"losses that are not among {best}"] * many
    return {
        "metric": evidence.metric_title,
        "seeds": ", ".join(map(str, settings["seeds"])),
        "confirm_seeds": ", ".join(map(str, settings["confirm_seeds"])),
        "grey": f" Grey: {' and '.join(grey)}." if grey else "",
        "others": f" Grey: {grey[-1]}." if many else "",
        "only": f" Shown are {best}." if many else "",
    }


@contextmanager
def _styled() -> Iterator[None]:
    """In the style of all figures; characters that the font lacks are boxes in a PNG without a warning."""
    import matplotlib

    with matplotlib.rc_context(style.RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        yield


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def _element(figure: "Figure") -> str:
    """The SVG without what only a file of its own has before it."""
    text = _svg(figure).decode()
    return text[text.index("<svg") :]
