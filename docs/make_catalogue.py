"""Writes docs/losses.md, the catalogue of losses, from their docstrings and search spaces: `make docs`.

With --check it only says whether the page is current.
"""

import inspect
import re
import sys
from pathlib import Path

import yaml
from torch import Tensor

import tune_spaces
from recloss.losses import FAMILIES, Loss, build

PAGE = Path(__file__).parent / "losses.md"
SPACES = Path(tune_spaces.__file__).parent / "losses"
HEAD = """# The losses

<!-- Written by `make docs` from the docstrings; change those. -->

Scores come in as `pos` (B,), one positive per row, and `neg` (B, N), its negatives; `p_b` and `n_bj` in the
formulas. "Reads" lists what a loss needs beyond them, as fields of [`Batch`](../recloss/losses/base.py); "keeps" is
its state. Reads and keeps are those of the default arguments. Every formula is a pure function in the loss's file.
How to use a loss: [in your own loop](use-a-loss.md).

"""


def page() -> str:
    """The whole page."""
    sections = [HEAD, _index()]
    for family, members in FAMILIES.items():
        sections.append(f"## {family[0].upper()}{family[1:]}\n\n")
        sections += [_entry(cls) for cls in members]
    return "".join(sections).rstrip() + "\n"


def _index() -> str:
    rows = ["| loss | name | family | scores | reads | keeps |", "|---|---|---|---|---|---|"]
    for family, members in FAMILIES.items():
        for cls in members:
            loss = _built(cls)
            reads = ", ".join(f"`{field}`" for field in sorted(loss.needs)) or "–"
            kept = ", ".join(f"`{key}` {_shape(value)}" for key, value in loss.state_dict().items()) or "–"
            kept = kept if len(loss.state_dict()) < 4 else f"{len(loss.state_dict())} tensors"
            anchor = re.sub(r"[^\w-]", "", cls.title.lower())
            rows.append(f"| [{cls.title}](#{anchor}) | `{cls.name}` | {family} | {cls.similarity} | {reads} | {kept} |")
    return "\n".join(rows) + "\n\n"


def _entry(cls: type[Loss]) -> str:
    parts = _sections(cls)
    function = getattr(inspect.getmodule(cls), cls.name)
    formula = _paragraphs(inspect.getdoc(function) or "")[0]
    lines = [f"### {cls.title}", "", parts["text"], "", _code(formula), ""]
    if parts["Args"]:
        lines += ["| argument | default | |", "|---|---|---|", *_arguments(cls, parts["Args"]), ""]
    if parts["State"]:
        lines += [f"State: {_code(parts['State'])}", ""]
    space = yaml.safe_load((SPACES / f"{cls.name}.yaml").read_text())
    axes = [f"`{key}` {', '.join(map(str, values))}" for key, values in space.get("space", {}).items()]
    preset = [f"`{key}` = {value}" for key, value in space.get("preset", {}).items()]
    lines += [f"Search space ({space['source']}): {'; '.join(axes)}. Preset: {', '.join(preset) or 'none'}.", ""]
    lines += [f"Source: {parts['Source']} Code: [{cls.name}.py](../recloss/losses/{cls.name}.py).", "", ""]
    return "\n".join(lines)


def _arguments(cls: type[Loss], text: str) -> list[str]:
    described = dict(re.findall(r"^(\w+): (.*?)(?=^\w+: |\Z)", text, re.MULTILINE | re.DOTALL))
    parameters = inspect.signature(cls).parameters
    return [f"| `{name}` | {_default(parameters[name])} | {_cell(meaning)} |" for name, meaning in described.items()]


def _cell(text: str) -> str:
    return _code(" ".join(text.split())).replace("|", "\\|")


def _default(parameter: inspect.Parameter) -> str:
    return "size of the data" if parameter.default is parameter.empty else f"`{parameter.default}`"


def _sections(cls: type[Loss]) -> dict[str, str]:
    """The docstring of a loss: its text, and what follows "Args:", "State:" and "Source:"."""
    found = {"text": "", "Args": "", "State": "", "Source": ""}
    text = []
    for paragraph in _paragraphs(inspect.getdoc(cls) or ""):
        key, colon, rest = paragraph.partition(":")
        if colon and key in found:
            found[key] = inspect.cleandoc("\n" + rest) if key == "Args" else " ".join(rest.split())
        else:
            text.append(" ".join(paragraph.split()))
    return found | {"text": _code("\n\n".join(text))}


def _paragraphs(doc: str) -> list[str]:
    return doc.split("\n\n")


def _code(text: str) -> str:
    """Markdown of a docstring's double backticks."""
    return text.replace("``", "`")


SIZES = {"n_users": 101, "n_items": 1009, "n_pairs": 10007, "n_negatives": 7}
"""Primes, so that a shape tells what it is sized by."""


def _shape(tensor: Tensor) -> str:
    names = {value: name for name, value in SIZES.items()}
    return (
        "(" + ", ".join(names.get(size, str(size)) for size in tensor.shape) + ("," if tensor.dim() == 1 else "") + ")"
    )


def _built(cls: type[Loss]) -> Loss:
    return build(cls.name, {}, **SIZES, seed=0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(None if PAGE.read_text() == page() else f"{PAGE} is not what the docstrings say: run `make docs`")
    PAGE.write_text(page())
