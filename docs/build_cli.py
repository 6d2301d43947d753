"""Write docs/cli.md from the command line's own help, or with --check fail if it is stale."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from lab3.cli import main

PATH = Path(__file__).with_name("cli.md")


def render() -> str:
    parts = ["# Command line\n\nMade by `make docs` from the commands' own help.\n"]
    for names in ([], *_names_below(main)):
        text = CliRunner().invoke(main, [*names, "--help"], prog_name="lab3", terminal_width=100).output
        parts.append(f"## {' '.join(['lab3', *names])}\n\n```\n{text}```\n")
    return "\n".join(parts)


def _names_below(group: click.Group) -> Iterator[list[str]]:
    for name, command in group.commands.items():
        yield [name]
        if isinstance(command, click.Group):
            yield from ([name, *names] for names in _names_below(command))


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PATH.write_text(render())
    elif PATH.read_text() != render():
        click.echo("docs/cli.md is stale: run `make docs`", err=True)
        sys.exit(1)
