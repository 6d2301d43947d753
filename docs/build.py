"""Write cli.md, settings.md and report.schema.json from the package itself, or with --check fail if one is stale."""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from pydantic import BaseModel

from lab3.app.cli import main
from lab3.base.reading import schema_of
from lab3.config import Config
from lab3.views.report.facts import Report

SETTINGS = """\
# Settings

Made by `make docs` from the settings' own definitions in the package.

An experiment is a YAML file with these keys. `lab3 validate FILE` checks it and prints it with every default filled in;
unknown keys and wrong types are errors, and all problems of a file are reported at once. In order of strength:
`--set section.key=value` (or `lab3 run FILE section.key=value`), the experiment file, for `tracking` the file
`wandb_config.yaml` of the current folder, the defaults below.

[How it works](how-it-works.md) explains what `prune.effect`, `prune.measured` and `sweep.shortcut` mean,
[your own model](your-model.md) the criteria and the forms of data.
"""


def cli_page() -> str:
    """The help of every command."""
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


def settings_page() -> str:
    """A table for each section: key, type, default and meaning of each setting."""
    parts = [SETTINGS]
    for name, section in sections():
        schemas, meanings = section.model_json_schema()["properties"], meanings_of(section)
        lines = [f"## {name or 'experiment'}", "", inspect.cleandoc(section.__doc__ or ""), ""]
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, field in section.model_fields.items():
            if not _is_section(field.annotation):
                dotted, meaning = ".".join(filter(None, (name, key))), meanings[key].replace("|", "\\|")
                lines.append(f"| `{dotted}` | {_type(schemas[key])} | `{_yaml(field.default)}` | {meaning} |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def sections(name: str = "", section: Any = Config) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section with its dotted name; that of the experiment itself is empty."""
    yield name, section
    for key, field in section.model_fields.items():
        if _is_section(field.annotation):
            yield from sections(".".join(filter(None, (name, key))), field.annotation)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def meanings_of(section: type[BaseModel]) -> dict[str, str]:
    """What the comments right above and beside each field of `section` say; empty where there are none."""
    lines = textwrap.dedent(inspect.getsource(section)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    meanings = {}
    for node in definition.body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
            above = [line.lstrip("# ") for line in lines[first : node.lineno - 1]]
            beside = [line.partition("  # ")[2] for line in lines[node.lineno - 1 : node.end_lineno]]
            meanings[node.target.id] = " ".join(filter(None, above + beside))
    return meanings


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    names = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    words = [f"{word} {str(schema[limit]).removesuffix('.0')}" for limit, word in limits.items() if limit in schema]
    if "pattern" in schema:
        words.append(f"that matches `{schema['pattern']}`")
    return " ".join([names[schema["type"]], " and ".join(words)]).strip()


def _yaml(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(default)


def report_schema() -> str:
    """The JSON schema of `report.json`."""
    return json.dumps(schema_of(Report), indent=1) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "report.schema.json": report_schema,
}

if __name__ == "__main__":
    for file, page in PAGES.items():
        path = Path(__file__).with_name(file)
        if "--check" not in sys.argv:
            path.write_text(page())
        elif not path.exists() or path.read_text() != page():
            click.echo(f"docs/{file} is stale: run `make docs`", err=True)
            sys.exit(1)
