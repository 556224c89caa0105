"""Arrows point one way: cli -> pipelines -> recloss; recloss needs torch and numpy only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED_IN_RECLOSS = {"recloss", "torch", "numpy", *sys.stdlib_module_names}


def imported(source: str, package: str) -> set[str]:
    """Absolute names of all modules that ``source``, a module of ``package``, imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def sources(package: str) -> dict[str, set[str]]:
    """Path of every module below a package, and what it imports."""
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    relative = [path.relative_to(ROOT) for path in paths]
    return {r.as_posix(): imported(p.read_text(), ".".join(r.parts[:-1])) for r, p in zip(relative, paths, strict=True)}


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import ray.data as rd", {"ray.data"}),
        ("def f():\n    if x:\n        from mlflow import client", {"mlflow", "mlflow.client"}),
        ("from . import cli", {"pipelines.report", "pipelines.report.cli"}),
        ("from .. import cli", {"pipelines", "pipelines.cli"}),
        ("from ..cli import main", {"pipelines.cli", "pipelines.cli.main"}),
    ],
)
def test_imported_sees_every_form(source, names):
    assert imported(source, "pipelines.report") == names


def test_recloss_imports_nothing_but_torch_and_numpy():
    offenders = {path: top(names) - ALLOWED_IN_RECLOSS for path, names in sources("recloss").items()}
    assert {path: names for path, names in offenders.items() if names} == {}


def test_importing_all_of_recloss_loads_no_module_of_the_pipelines():
    program = """
import importlib, pkgutil, sys
import recloss
names = [m.name for m in pkgutil.walk_packages(recloss.__path__, "recloss.")]
for name in names:
    importlib.import_module(name)
assert len(names) > 10, names
unwanted = "ray mlflow pyarrow pandas pydantic click rich yaml pipelines tune_spaces".split()
print(*sorted(set(unwanted) & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stdout.strip()) == (0, ""), said.stderr


def test_nothing_imports_the_command():
    modules = sources("recloss") | sources("pipelines") | sources("tune_spaces")
    assert [path for path, names in modules.items() if "pipelines.cli" in names] == []


def test_only_tracking_talks_to_mlflow():
    users = [path for path, names in sources("pipelines").items() if "mlflow" in top(names)]
    assert [path for path in users if not path.startswith("pipelines/tracking")] == ["pipelines/doctor.py"]
