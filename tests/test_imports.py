"""Who may import whom, and which module owns which library. Function bodies count too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lab3"
# A module may import only from modules in lines above its own, and of those only what its set lists.
MAY_IMPORT: dict[str, set[str]] = {
    "": {"notebook"},
    "errors": set(),
    "criteria": set(),
    "progress": set(),
    "schedule": {"errors"},
    "preprocess": {"errors"},
    "rank": set(),
    "storage": {"errors"},
    "files": set(),
    "reading": {"errors"},
    "bars": {"errors", "progress"},
    "model_classes": set(),
    "journal": {"errors", "files", "reading"},
    "data": {"errors", "files", "storage"},
    "backend": {"errors", "storage"},
    "architectures": set(),
    "config": {"criteria", "errors", "schedule"},
    "graph": {"errors"},
    "channelwise": {"graph"},
    "class_scores": {"errors", "graph"},
    "layers": {"channelwise", "class_scores", "errors", "graph"},
    "anatomy": {"backend", "channelwise", "class_scores", "errors", "graph", "layers"},
    "head": {"anatomy", "backend", "class_scores", "graph"},
    "split": {"anatomy", "backend", "class_scores", "graph", "head", "storage"},
    "capture": {"criteria", "errors", "backend", "split", "storage"},
    "engine": {"errors", "backend", "rank", "split", "storage"},
    "scores": {"backend", "capture", "criteria", "engine", "errors", "split", "storage"},
    "selfcheck": {"backend", "capture", "engine", "errors", "rank", "split", "storage"},
    "model_inspection": {"errors", "files", "model_classes"},
    "model_building": {"errors", "graph", "model_inspection"},
    "model_files": {"errors", "files", "graph", "layers", "model_building", "model_inspection"},
    "checkpoints": {"files", "reading"},
    "training": {"backend", "checkpoints", "class_scores", "data", "graph"},
    "manifest": {"backend", "files", "reading", ""},
    "rundir": {"config", "errors", "files", "manifest", "reading"},
    "figures": {"engine", "errors", "files", "training"},
    "tracking": {"config", "errors", "engine", "rank", "training"},
    "readers": {"engine", "journal", "rank", "reading", "rundir", "scores", "training"},
    "outputs": {"engine", "figures", "files", "journal", "rank", "readers", "rundir", "scores", "training"},
    "arguments": {"config", "data", "errors"},
    "notebook": {
        "anatomy", "arguments", "bars", "capture", "criteria", "engine", "errors", "figures", "model_files", "rank",
        "schedule", "scores", "selfcheck", "split",
    },
    "pipeline": {
        "architectures", "backend", "capture", "checkpoints", "config", "criteria", "data", "engine", "errors",
        "figures", "files", "graph", "journal", "layers", "manifest", "model_files",
        "outputs", "preprocess", "progress", "rank", "readers", "reading", "rundir", "schedule", "scores", "selfcheck",
        "split", "storage", "tracking", "training",
    },
    "cli": {
        "", "backend", "bars", "config", "engine", "errors", "model_files", "outputs", "pipeline",
        "progress", "readers", "rundir", "tracking",
    },
    "__main__": {"cli"},
}  # fmt: skip
KERAS = {
    "anatomy",
    "architectures",
    "arguments",
    "backend",
    "channelwise",
    "class_scores",
    "checkpoints",
    "data",
    "graph",
    "head",
    "layers",
    "manifest",
    "model_building",
    "model_classes",
    "model_files",
    "model_inspection",
    "pipeline",
    "selfcheck",
    "split",
    "training",
}
OWNERS: dict[str, set[str]] = {
    "wandb": {"tracking"},
    "matplotlib": {"figures"},
    "click": {"cli"},
    "rich": {"bars", "cli"},
    "yaml": {"config"},
    "pydantic": {"config", "reading"},
    "keras": KERAS,
    "tensorflow": {"backend"},
    "jax": {"backend"},
    "torch": {"backend"},
    "PIL": {"data"},
    "h5py": {"model_inspection"},
}


def component(path: Path) -> str:
    """`data` for everything in lab3/data/, `rank` for lab3/rank.py, the empty string for lab3/__init__.py."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names.update([node.module] if node.module != "lab3" else [f"lab3.{alias.name}" for alias in node.names])
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_table_is_ordered_and_complete() -> None:
    seen: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        if name:
            assert allowed - {""} <= seen, f"{name} may import {allowed - seen}, which do not stand above it"
        seen.add(name)
    assert {component(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_what_they_may(path: Path) -> None:
    here = component(path)
    for name in imports_of(path):
        root, _, rest = name.partition(".")
        if root == "lab3":
            there = rest.partition(".")[0]
            assert there == here or there in MAY_IMPORT[here], f"{path.name} may not import {name}"
        elif root in OWNERS:
            assert here in OWNERS[root], f"{path.name} may not import {name}; it belongs to {sorted(OWNERS[root])}"


@pytest.mark.parametrize("command", ["import lab3", "from lab3.cli import main", "import lab3.cli.runs"])
def test_nothing_slow_is_loaded_before_it_is_needed(command: str) -> None:
    slow = ["keras", "tensorflow", "wandb", "matplotlib", "numpy", "pydantic", "rich"]
    check = f"{command}; import sys; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"
