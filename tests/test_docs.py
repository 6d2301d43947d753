"""The documents say what is there."""

import re
import shlex
from pathlib import Path

import click
import pytest

from lab3.cli import main
from lab3.config import Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands_in(text: str) -> list[list[str]]:
    """Every `lab3 ...` line of a shell block, split into words, comments left out."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("lab3 ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_every_command_line_of_the_readme_parses() -> None:
    lines = commands_in(README)
    assert len(lines) >= 6
    for name, *args in lines:
        command = main.commands[name]
        if isinstance(command, click.Group):
            command, *args = command.commands[args[0]], *args[1:]
        context = command.make_context(name, list(args))
        assert context.params


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_setting_in_the_readme_exists() -> None:
    sections = {
        name: set(type(getattr(Config(), name)).model_fields) for name in ("data", "model", "prune", "sweep", "train")
    }
    named = re.findall(r"`(data|model|prune|sweep|train)\.([a-z_]+)`", README)
    assert len(named) >= 8
    for section, field in named:
        assert field in sections[section], f"README names {section}.{field}"


def test_the_command_reference_has_every_command_and_option() -> None:
    reference = (ROOT / "docs" / "cli.md").read_text()
    groups = {name: group for name, group in main.commands.items() if isinstance(group, click.Group)}
    inner = {f"{outer} {name}": each for outer, group in groups.items() for name, each in group.commands.items()}
    for name, command in {**main.commands, **inner}.items():
        assert f"## lab3 {name}\n" in reference
        part = reference.split(f"## lab3 {name}\n")[1].split("\n## ")[0]
        for option in (param for param in command.params if isinstance(param, click.Option)):
            assert option.opts[0] in part, f"docs/cli.md lacks {option.opts[0]} of {name}: run `make docs`"


def test_decision_notes_are_short_and_numbered() -> None:
    notes = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [note.name[:4] for note in notes] == [f"{number:04d}" for number in range(1, len(notes) + 1)]
    assert all(len(note.read_text().splitlines()) <= 30 for note in notes)
