"""docs/cli.md, from the help that every command prints: `python -m tools.cli_page` writes it anew."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
import typer

from autodistill_grounded_sam.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Command line

What `grounded-sam COMMAND --help` says, of every command. This page is written by `python -m tools.cli_page`; a test fails when
it is older than the commands.

`--json` prints one object for programs on stdout. Exit codes: 0 all images were read, 3 some were set aside (`run/failed.jsonl`
says why), 2 wrong use, 1 a fault, 130 interrupted. `grounded-sam --version` prints the version; `grounded-sam --verbose COMMAND`
shows what the library logs.
"""


def page() -> str:
    """The page: a table of the commands, then a section each, in the order of `grounded-sam --help`."""
    found = list(_commands("grounded-sam", typer.main.get_command(app)))
    rows = [f"| [`{_short(name)}`](#{_short(name).replace(' ', '-')}) | {_first(command)} |" for name, command in found]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return "\n".join([HEAD, table, "", *(_section(name, command) for name, command in found)])


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """All commands below this one, by the whole name that a person types."""
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for word, child in children.items():
        yield from _commands(f"{name} {word}", child)


def _section(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    needed = [f"{option.opts[0]} {_kind(option)}" for option in options if option.required]
    usage = " ".join([name, *(_argument(argument) for argument in arguments), *needed, "[OPTIONS]"])
    rows = [f"| `{_argument(argument)}` | {_cell(_help_of(argument, command))} |" for argument in arguments]
    rows += [f"| `{_flags(option)}` | {_cell(_text(option))} |" for option in options]
    return "\n".join(
        [f"## {_short(name)}", "", _escaped(command.help), "", "```", usage, "```", "", "| | |", "|---|---|", *rows, ""]
    )


def _argument(argument: Any) -> str:
    name: str = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _help_of(argument: Any, command: Any) -> str:
    """What the source says of an argument: click 8.5 drops the help of typer 0.25's arguments."""
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    (told,) = hints[argument.name].__metadata__
    return _escaped(told.help)


def _flags(option: Any) -> str:
    return f"{'/'.join([*option.opts, *option.secondary_opts])} {_kind(option)}".strip()


def _kind(option: Any) -> str:
    """What is to be typed behind the flag: nothing, or the kind of value in capitals."""
    return "" if option.is_flag else "PATH" if isinstance(option.type, click.Path) else str(option.type.name.upper())


def _text(option: Any) -> str:
    """The help, with the default behind it where there is one that the help does not say."""
    said = not option.is_flag and option.default not in (None, ()) and not option.required
    return _escaped(option.help or "") + (f" Default: `{option.default}`." if said else "")


def _first(command: Any) -> str:
    return _escaped(command.help.partition("\n")[0])


def _short(name: str) -> str:
    return name.partition(" ")[2]


def _escaped(text: str) -> str:
    return text.strip().replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
