r"""The comparison table for a paper: booktabs, best ``\textbf``, second ``\underline``; a file to ``\input``."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from pipelines.report.report import Report
from pipelines.report.table import Column, Improvement, Score, Table

_COLUMNS = 6
"""So many scores with their deviations stand beside each other on a page."""
_MARKS = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}

_CHARACTERS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "*": "{*}", "[": "{[}", "]": "{]}",
    "±": r"$\pm$", "×": r"$\times$",
    "↓": r"$\downarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "τ": r"$\tau$", "β": r"$\beta$", "…": r"\ldots{}",
    "–": r"\textendash{}", "—": r"\textemdash{}", "’": "'", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}",
    "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "å": r"\aa{}", "Å": r"\AA{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
"""In braces what ``\\\\`` would take for its own star or argument at the start of a line."""
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0328": "k",
}  # fmt: skip
"""Combining character to the LaTeX command of its accent."""


def latex(report: Report) -> str:
    """A ``table*`` of all columns, or of each data set (and, where that is still too wide, of some backbones)."""
    parts = _parts(report.table.columns)
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_table(report.table, part) for part in parts)


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, in ASCII; a character that pdflatex has no letter for becomes ``[U+4E2D]``."""
    decomposed = "".join(c if c in _CHARACTERS else unicodedata.normalize("NFD", c) for c in text)
    printed = re.sub(r"(.)([\u0300-\u036f]*)", lambda found: _printed(*found.groups()), decomposed, flags=re.DOTALL)
    return re.sub("-(?=-)", "-{}", printed)


def _printed(letter: str, accents: str) -> str:
    if letter not in _CHARACTERS and not (letter.isascii() and letter.isprintable()):
        printed = f"{{[}}U+{ord(letter):04X}{{]}}"
    else:
        printed = _CHARACTERS.get(letter, letter)
    for accent in accents:
        printed = (
            rf"\{_ACCENTS[accent]}{{{printed}}}" if accent in _ACCENTS else f"{printed}{{[}}U+{ord(accent):04X}{{]}}"
        )
    return printed


def _parts(columns: Sequence[Column]) -> list[list[int]]:
    """The columns that stand in one table."""
    if len(columns) <= _COLUMNS:
        return [list(range(len(columns)))]
    parts: list[list[int]] = []
    for _, group in groupby(range(len(columns)), key=lambda i: (columns[i].data, columns[i].backbone)):
        indices = list(group)
        for first in range(0, len(indices), _COLUMNS):
            block = indices[first : first + _COLUMNS]
            same_data = parts and columns[parts[-1][0]].data == columns[block[0]].data
            if same_data and len(parts[-1]) + len(block) <= _COLUMNS:
                parts[-1] += block
            else:
                parts.append(block)
    return parts


def _table(table: Table, indices: list[int]) -> str:
    columns = [table.columns[index] for index in indices]
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{Sweep {escape(table.sweep)}, {escape(', '.join(dict.fromkeys(c.data for c in columns)))}.}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *_spanning([c.data for c in columns]),
        *_spanning([f"{c.data}\0{c.backbone_title}" for c in columns]),
        _row(["Loss", *(escape(c.metric_title) for c in columns)]),
    ]
    for family, rows in table.families:
        lines.append(r"\midrule")
        if len(table.families) > 1:
            lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\textit{{{escape(family)}}}}} \\")
        lines += [_row([escape(row.title), *(_score(row.scores[index]) for index in indices)]) for row in rows]
    if table.improvements:
        lines += [r"\midrule", _row([r"Imp.\%", *(_improvement(table.improvements[index]) for index in indices)])]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\scriptsize"]
    notes = " \\\\\n".join(_notes(table, indices))
    return "\n".join([*lines, notes, r"\end{minipage}", r"\end{table*}"]) + "\n"


def _spanning(names: list[str]) -> list[str]:
    """A line of headings, each over the columns that share it, and the rules below them."""
    runs = [(name.split("\0")[-1], len(list(group))) for name, group in groupby(names)]
    ends = [1 + sum(length for _, length in runs[: number + 1]) for number in range(len(runs))]
    headings = [rf"\multicolumn{{{length}}}{{c}}{{{escape(name)}}}" for name, length in runs]
    rules = [rf"\cmidrule(lr){{{end - length + 1}-{end}}}" for (_, length), end in zip(runs, ends, strict=True)]
    return [_row(["", *headings]), " ".join(rules)]


def _notes(table: Table, indices: list[int]) -> list[str]:
    """Header, legend and the footnotes that stand in these columns."""
    noted = [row.scores[index] for row in table.rows for index in indices]
    numbers = {number for score in noted for number in score.notes}
    numbers |= {number for index in indices if table.improvements for number in table.improvements[index].notes}
    told = [line.format(best="bold", second="underlined") for line in table.legend]
    lines = [escape(line) for line in (*table.header, *told)]
    return lines + [rf"\textsuperscript{{{number}}} {escape(table.notes[number - 1])}" for number in sorted(numbers)]


def _score(score: Score) -> str:
    if score.mean is None:
        return "--" + _superscripts(score.notes)
    star = "$^{*}$" if score.significant else ""
    spread = "" if score.std is None else rf" {{\scriptsize$\pm${score.std:.4f}}}"
    return _MARKS[score.mark] % f"{score.mean:.4f}" + star + spread + _superscripts(score.notes)


def _improvement(improvement: Improvement) -> str:
    percent = improvement.percent
    return ("--" if percent is None else f"${percent:+.2f}$") + _superscripts(improvement.notes)


def _superscripts(notes: tuple[int, ...]) -> str:
    return rf"\textsuperscript{{{','.join(map(str, notes))}}}" if notes else ""


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
