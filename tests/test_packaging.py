"""The wheel: what it holds, and that the loss library in it needs torch and numpy only."""

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def must(*command, **options):
    said = run(*command, **options)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def files_of_the_project():
    """What a checkout holds, and new files that git does not ignore."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is not known")
    listed = must("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as a release would be, but with this environment's setuptools, so that nothing is downloaded."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in files_of_the_project():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    must(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source)
    (built,) = out.iterdir()
    return built


def test_the_wheel_holds_what_it_should(wheel):
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if not n.partition("/")[0].endswith(".dist-info")}
    wanted = {
        name
        for name in files_of_the_project()
        if name.startswith(("recloss/", "pipelines/", "tune_spaces/"))
        and name.endswith((".py", ".yaml", ".csv", ".c", ".inc", ".j2", ".css", ".js"))
    }
    assert inside == wanted | {"recloss/py.typed"}


def test_the_wheel_carries_the_licences(wheel):
    inside = zipfile.ZipFile(wheel).namelist()
    for name in ("LICENSE", "THIRD_PARTY.md"):
        assert [path for path in inside if path.endswith(f".dist-info/licenses/{name}")], inside


def closure(*packages):
    """Installed distributions that ``packages`` need, themselves included."""
    found, todo = {}, list(packages)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        needed = [Requirement(line) for line in found[name].requires or []]
        todo += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found.values()


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """A virtual environment with the wheel; of other packages only torch, numpy and what these two need."""
    folder, shown = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("shown")
    venv.create(folder, with_pip=False, symlinks=True)
    for package in closure("torch", "numpy"):
        for entry in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (shown / entry).exists():
                (shown / entry).symlink_to(package.locate_file(entry))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shown.pth").write_text(f"{shown}\n")
    python = folder / "bin" / "python"
    must(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
    )
    return folder / "bin"


def test_the_loss_library_works_with_torch_and_numpy_alone(bare, tmp_path):
    program = """
import importlib, importlib.util, pkgutil
import recloss, torch
for absent in ("ray", "mlflow", "pyarrow", "pandas", "pydantic", "click", "rich", "yaml", "pytest"):
    assert importlib.util.find_spec(absent) is None, absent
for module in pkgutil.walk_packages(recloss.__path__, "recloss."):
    importlib.import_module(module.name)
batch = recloss.losses.Batch(pos=torch.tensor([0.5]), neg=torch.tensor([[0.1, 0.3]]))
print(recloss.__file__)
print(recloss.losses.get("sl")(tau=0.5)(batch).item())
"""
    file, value = must(bare / "python", "-c", program, cwd=tmp_path).split()
    assert Path(file).is_relative_to(bare.parent)
    assert float(value) == pytest.approx(0.1130153, abs=1e-6)  # log(exp(0.2) + exp(0.6)) - 1, by hand


def test_the_command_without_its_extra_says_how_to_get_it(bare, tmp_path):
    said = run(bare / "recloss", "sweep", "demo.yaml", cwd=tmp_path)
    assert "pip install 'recloss[pipelines]'" in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert said.stdout == ""
    assert said.returncode == 2
