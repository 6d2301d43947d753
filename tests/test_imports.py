"""Which room may import which, who owns which library and which private names, and that nothing slow loads early."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lab3"
# A room may import itself and rooms before it; single files of the top level count as rooms.
ROOMS = (
    "errors", "vocabulary", "base", "inputs", "pruning", "analysis", "config", "record", "views", "tracking", "app",
    "arguments", "notebook", "__init__", "__main__",
)  # fmt: skip
# Besides: the command line is imported by `python -m lab3`, the version by the manifest.
ALSO = {("record", "__init__"), ("app", "__init__"), ("__main__", "app")}
# The paths below lab3/ that may import a library, in function bodies too.
OWNERS = {
    "wandb": ("tracking/",),
    "wandb_workspaces": ("tracking/dashboards.py",),
    "matplotlib": ("views/",),
    "click": ("app/cli/",),
    "rich": ("base/bars.py", "app/cli/"),
    "yaml": ("config/",),
    "pydantic": ("config/", "base/reading.py"),
    "keras": ("base/", "inputs/", "pruning/", "app/pipeline/", "arguments.py"),
    "tensorflow": ("base/backend.py", "base/devices.py"),
    "jax": ("base/backend.py", "base/devices.py"),
    "torch": ("base/backend.py", "base/devices.py"),
    "PIL": ("inputs/data/", "views/report/pictures.py"),
    "jinja2": ("views/report/", "views/dashboard/"),
    "starlette": ("views/dashboard/",),
    "prometheus_client": ("views/dashboard/",),
    "uvicorn": ("app/cli/",),
    "markupsafe": ("views/report/",),
    "h5py": ("inputs/inspection/",),
    "scipy": ("analysis/",),
    "ray": ("app/grid/cluster.py",),
    "pyarrow": ("app/grid/results.py",),
    "onnxruntime": ("app/pipeline/runtimes.py",),
    "ai_edge_litert": ("app/pipeline/runtimes.py",),
}
# Private names of other libraries, and where they stand.
PRIVATE = {
    r"wandb\.sdk": "tracking/client.py",
    r"\._keras_history|\._inbound_nodes|_nodes_by_depth|_flatten_layers|_open_name_scope": "base/graph.py",
    r"\._to_model|\._internal_": "tracking/dashboards.py",
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "experiments" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(name: str) -> str:
    """The room of a path below lab3/, or of a module's dotted name behind `lab3.`; the empty string is the package."""
    return re.split(r"[./]", name)[0] or "__init__"


def modules_of(path: Path) -> set[str]:
    """The full names of modules that a file imports, or imports something from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{path}: relative import"
            below = PACKAGE.parent / node.module.replace(".", "/")
            inner = [
                a.name for a in node.names if below.joinpath(a.name).is_dir() or below.joinpath(f"{a.name}.py").exists()
            ]
            found.update(f"{node.module}.{name}" for name in inner)
            if len(inner) < len(node.names):
                found.add(node.module)
    return found


def file_of(module: str) -> Path | None:
    path = PACKAGE.parent / module.replace(".", "/")
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)


def test_every_file_stands_in_a_room_that_says_what_it_is_for() -> None:
    assert {room_of(name_of(path).removesuffix(".py")) for path in FILES} == set(ROOMS)
    for room in ("base", "inputs", "pruning", "analysis", "record", "views", "app"):
        docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
        assert 2 <= len(docstring.splitlines()) <= 4, f"lab3/{room}/__init__.py must say what the room is for"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_rooms_before_them_and_libraries_their_owners(path: Path) -> None:
    name = name_of(path)
    here = room_of(name.removesuffix(".py"))
    for module in modules_of(path):
        root, _, rest = module.partition(".")
        if root == "lab3":
            there = room_of(rest)
            is_before = ROOMS.index(there) <= ROOMS.index(here)
            assert is_before or (here, there) in ALSO, f"{name} may not import {module}: its room comes later"
        elif root in OWNERS:
            assert name.startswith(OWNERS[root]), f"{name} may not import {module}; it belongs to {OWNERS[root]}"
    text = path.read_text()
    for pattern, owner in PRIVATE.items():
        assert name == owner or not re.search(pattern, text), f"{pattern} belongs to lab3/{owner}, found in {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    imports = {
        path: {other for module in modules_of(path) if (other := file_of(module)) and other != path} for path in FILES
    }
    left = dict(imports)
    # The package itself loads what it needs when it is asked for a name.
    left.pop(PACKAGE / "__init__.py")
    while ready := [path for path, others in left.items() if not others & left.keys()]:
        for path in ready:
            del left[path]
    assert not left, f"these import each other: {', '.join(sorted(map(name_of, left)))}"


def test_the_record_is_read_without_what_is_slow() -> None:
    slow = ["keras", "tensorflow", "wandb", "matplotlib"]
    check = f"import lab3.record.readers, sys; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("command", ["import lab3", "from lab3.app.cli import main", "import lab3.app.cli.runs"])
def test_nothing_slow_is_loaded_before_it_is_needed(command: str) -> None:
    slow = ["keras", "tensorflow", "wandb", "matplotlib", "numpy", "pydantic", "rich"]
    check = f"{command}; import sys; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_no_test_imports_another(path: Path) -> None:
    """What several tests need stands in a module of its own, beside them."""
    assert not [module for module in modules_of(path) if module.startswith("tests.test_")]
