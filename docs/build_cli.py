"""Write docs/cli.md from the command line's own help, or with --check fail if it is stale."""

import sys
from pathlib import Path

import click
from click.testing import CliRunner

from lab3.cli import main

PATH = Path(__file__).with_name("cli.md")


def render() -> str:
    parts = ["# Command line\n\nMade by `make docs` from the commands' own help.\n"]
    for name in (None, *main.commands):
        args = [name, "--help"] if name else ["--help"]
        text = CliRunner().invoke(main, args, prog_name="lab3", terminal_width=100).output
        parts.append(f"## {'lab3 ' + name if name else 'lab3'}\n\n```\n{text}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PATH.write_text(render())
    elif PATH.read_text() != render():
        click.echo("docs/cli.md is stale: run `make docs`", err=True)
        sys.exit(1)
