"""The wheel, outside of the repository: what it holds, and what it does in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.quick_start import PRINTED, assert_printed

ROOT = Path(__file__).parents[1]
SOURCES = ("lab3", "experiments", "README.md", "LICENSE", "setup.cfg", "pyproject.toml")
# As it is before a test has a home of its own: pip's settings are in it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**ENVIRONMENT, **variables}
    return subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        copy.parent.mkdir(exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, copy, symlinks=True, ignore=ignored) if source.is_dir() else shutil.copy(source, copy)
    options = ("--no-deps", "--no-build-isolation", "-q", "-w", folder)
    built = run(sys.executable, "-m", "pip", "wheel", *options, folder / "source", cwd=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_experiments(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lab3").rglob("*.py")}
    shipped = {f"lab3/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert len(modules) > 20 and len(shipped) >= 3
    assert modules | shipped | {"lab3/py.typed"} <= inside
    data = {name for name in inside if not name.endswith(".py")} - shipped
    assert not [name for name in data if name.endswith((".yaml", ".md"))]
    assert {name.partition("/")[0] for name in inside} == {"lab3"}
    (licence,) = [name for name in names if name.endswith("LICENSE")]
    with zipfile.ZipFile(wheel) as file:
        assert file.read(licence) == (ROOT / "LICENSE").read_bytes()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        assert re.search(r"^License(-Expression)?: Apache-2.0$", file.read(metadata).decode(), re.MULTILINE)


def test_the_wheel_finds_what_it_ships_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    place = run(sys.executable, "-c", "import lab3; print(lab3.__file__)", cwd=empty, PYTHONPATH=str(site))
    assert place.stdout.strip() == str(site / "lab3" / "__init__.py")
    lab3 = (sys.executable, "-m", "lab3", "validate")
    found = run(*lab3, "digits", cwd=empty, PYTHONPATH=str(site))
    assert found.returncode == 0 and found.stdout.startswith("name: digits\n"), found.stderr
    missing = run(*lab3, "digit", cwd=empty, PYTHONPATH=str(site))
    assert (missing.returncode, missing.stderr) == (
        78,
        "Error: digit: no such file; give the path of an experiment, or the name of one that lab3 ships: digits, "
        "simplecnn_cifar10, vgg16_cifar10\n",
    )
    assert list(empty.iterdir()) == []


@pytest.mark.wheel
def test_the_quick_start_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    """It prints what the README says, to within two points of accuracy."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run(python.with_name("lab3"), "run", "digits", cwd=empty, HOME=str(tmp_path), CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stderr
    assert_printed(PRINTED, done.stderr + done.stdout)
    baseline = re.compile(r"^ *0 +0 +\d+ +(0\.\d+)", re.MULTILINE)
    expected, found = (float(baseline.findall(text)[0]) for text in (PRINTED, done.stdout))
    assert abs(expected - found) <= 0.02
    assert (empty / done.stdout.splitlines()[-1] / "summary.json").exists()
    assert [path.name for path in empty.iterdir()] == ["runs"]
