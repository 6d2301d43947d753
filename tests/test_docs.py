"""The documents say what is there, and the README what the quick start prints."""

import base64
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from lab3.app.cli import main
from lab3.config import Config
from tests.quick_start import PRINTED, README, assert_printed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "CHANGELOG.md", ROOT / "experiments" / "LOG.md"]
BUILD = runpy.run_path(str(DOCS / "build.py"))
SECTIONS = {name: section for name, section in BUILD["sections"]()}


def commands_in(text: str) -> list[list[str]]:
    """Every `lab3 ...` line of a shell block, split into words, comments left out."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.rpartition(" && .venv/bin/")[2] for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lab3 ")]


def test_every_command_line_of_the_documents_parses() -> None:
    assert ["run", "digits"] in commands_in(README)
    lines = [line for path in DOCUMENTS for line in commands_in(path.read_text())]
    assert len(lines) >= 20
    for name, *args in lines:
        command = main.commands[name]
        if isinstance(command, click.Group):
            command, *args = command.commands[args[0]], *args[1:]
        context = command.make_context(name, list(args))
        assert context.params


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.split()) <= 1000
    pages = {path.relative_to(ROOT).as_posix() for path in DOCS.glob("*.md")}
    assert len(pages) >= 8
    assert pages <= set(re.findall(r"\]\(([^)#]+)", README))
    decisions = {path.relative_to(DOCS).as_posix() for path in (DOCS / "decisions").glob("*.md")}
    assert decisions <= set(re.findall(r"\]\(([^)#]+)", (DOCS / "developers.md").read_text()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS[:-2], ids=lambda path: path.name)
def test_files_settings_and_targets_that_documents_name_exist(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"`((?:lab3|tests|benchmarks|experiments|docs|\.ci)/[\w./]*)`", text):
        assert (ROOT / name).exists(), f"{path.name} names {name}"
    for section, field in re.findall(r"`(data|model|prune|sweep|train|tracking)\.(?!h5|keras)([a-z_0-9]+)\b", text):
        assert field in SECTIONS[section].model_fields, f"{path.name} names {section}.{field}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, f"{path.name} names make {target}"


def test_the_quick_start_prints_what_the_readme_says(digits_folder: Path) -> None:
    """The figures of a run as it is are compared by tests/test_wheel.py; this one trained for two epochs."""
    assert_printed(PRINTED, (digits_folder / "output").read_text())


def test_every_setting_is_documented() -> None:
    assert set(SECTIONS) >= {
        "",
        "data",
        "model",
        "train",
        "train.augment",
        "prune",
        "sweep",
        "tracking",
        "tracking.log",
    }
    for name, section in SECTIONS.items():
        meanings = BUILD["meanings_of"](section)
        inner = {key for key in section.model_fields if ".".join(filter(None, (name, key))) in SECTIONS}
        undocumented = [key for key in section.model_fields if key not in inner and not meanings[key]]
        assert not undocumented, f"say what {name} {undocumented} means in a comment beside it"


def test_the_page_of_settings_is_up_to_date_and_says_type_default_and_meaning() -> None:
    page = (DOCS / "settings.md").read_text()
    assert page == BUILD["settings_page"](), "docs/settings.md is stale: run `make docs`"
    for row in (
        "| `train.epochs` | integer at least 1 | `10` | passes over the training images; fewer with `patience` |",
        "| `train.patience` | integer at least 1 or null | `null` | epochs without a better validation accuracy before "
        "stopping; null: never |",
        "| `data.mean` | number or list of numbers | `0.0` | subtracted then; one number, or one per color channel |",
        "| `train.augment.rotation` | number at least 0 and below 1 | `0.0` | of a full turn, either way |",
        "| `tracking.log.feature_maps` | true or false | `true` | the grids of mean feature maps |",
    ):
        assert row in page.splitlines()


def test_a_setting_without_a_comment_is_noticed() -> None:
    class Section(Config):
        documented: int = 1  # what it is
        # what the next one is,
        # at length
        above: int = 2
        alone: int = 3

    assert BUILD["meanings_of"](Section) == {
        "documented": "what it is", "above": "what the next one is, at length", "alone": ""
    }  # fmt: skip


def test_the_command_reference_has_every_command_and_option() -> None:
    reference = (DOCS / "cli.md").read_text()
    groups = {name: group for name, group in main.commands.items() if isinstance(group, click.Group)}
    inner = {f"{outer} {name}": each for outer, group in groups.items() for name, each in group.commands.items()}
    for name, command in {**main.commands, **inner}.items():
        assert f"## lab3 {name}\n" in reference
        part = reference.split(f"## lab3 {name}\n")[1].split("\n## ")[0]
        for option in (param for param in command.params if isinstance(param, click.Option)):
            assert option.opts[0] in part, f"docs/cli.md lacks {option.opts[0]} of {name}: run `make docs`"


def test_decision_notes_are_short_and_numbered() -> None:
    notes = sorted((DOCS / "decisions").glob("*.md"))
    assert [note.name[:4] for note in notes] == [f"{number:04d}" for number in range(1, len(notes) + 1)]
    assert all(len(note.read_text().splitlines()) <= 30 for note in notes)


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook. Asserts that it has the form that Jupyter reads, version 4.5."""
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["language_info"]["name"] == "python"
    cells: list[dict[str, Any]] = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        needed = {"id", "cell_type", "metadata", "source"}
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cell["id"]) and isinstance(cell["metadata"], dict)
        assert all(isinstance(line, str) for line in cell["source"])
        assert cell["cell_type"] in ("markdown", "code")
        assert set(cell) == needed | ({"outputs", "execution_count"} if cell["cell_type"] == "code" else set())
        for output in cell.get("outputs", ()):
            assert output["output_type"] in ("stream", "execute_result", "display_data")
            for data in output.get("data", {}).items():
                assert data[0] != "image/png" or base64.b64decode(data[1])[:4] == b"\x89PNG"
    return cells


def test_the_example_notebook_runs_and_finds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = cells_of(DOCS / "example.ipynb")
    scope: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), scope)
    model, result, x_test, y_test = (scope[name] for name in ("model", "result", "x_test", "y_test"))
    assert list(result.points) == list(range(32)) and result.at(0).total == len(y_test) == 445
    assert result.at(0).correct == (model.predict(x_test, verbose=0).argmax(axis=1) == y_test).sum() > 400
    assert result.at(31).correct < 300
    assert scope["by_hand"] == result.at(16).correct
    assert scope["largest"] == max(k for k in range(32) if result.at(k).accuracy >= result.at(0).accuracy - 0.01)
    assert set(scope["compared"]) == {"mean_activation", "filter_l1", "random"}
