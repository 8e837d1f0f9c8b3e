"""Writes docs/settings.md and docs/cli.md from the code: `python docs/generate.py`. A test compares them."""

import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from eyeline.cli import app
from eyeline.core.settings import Settings

DOCS = Path(__file__).parent


def settings_page() -> str:
    """Every setting with type, default and one sentence."""
    lines = [
        "# Settings",
        "",
        "One `eyeline.toml`; the environment over it (`EYELINE_QUEUE__URL=…`); defaults that run with no file at all.",
        "Unknown keys are refused with the nearest known one. `eyeline check` opens what they name.",
        "This page is made from the code: `python docs/generate.py`.",
    ]
    top = [(name, field) for name, field in Settings.model_fields.items() if _section(field.annotation) is None]
    lines += _table("(top level)", top)
    for name, field in Settings.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            lines += _sections(f"[{name}]" if section is field.annotation else f"[[{name}]]", name, section)
    return "\n".join(lines) + "\n"


def _sections(title: str, path: str, section: type[BaseModel]) -> list[str]:
    plain = [(n, f) for n, f in section.model_fields.items() if _section(f.annotation) is None]
    lines = _table(title, plain) if plain else []
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            lines += _sections(f"[[{path}.{name}]]", f"{path}.{name}", inner)
    return lines


def _section(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _table(title: str, fields: list[tuple[str, Any]]) -> list[str]:
    lines = ["", f"## `{title}`", "", "| key | type | default | |", "|---|---|---|---|"]
    for name, field in fields:
        default = "required" if field.default is PydanticUndefined else f"`{_shown(field.default)}`"
        lines.append(f"| `{name}` | {_type(field.annotation)} | {default} | {field.description or ''} |")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, str | Path):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is not None or not isinstance(annotation, type):
        words = [_type(a) if isinstance(a, type) else repr(a) for a in get_args(annotation) if a is not type(None)]
        kind = str(get_origin(annotation))
        if "list" in kind:
            inner = get_args(annotation)[0]
            return f"list of {_type(inner)}"
        if "Annotated" in str(annotation):
            return _type(get_args(annotation)[0])
        return " or ".join(word.replace("|", "/") for word in words)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        annotation.__name__, annotation.__name__.lower()
    )


def cli_page() -> str:
    """Every command with its help."""
    lines = [
        "# Commands",
        "",
        "Made from the code: `python docs/generate.py`. `eyeline COMMAND --help` says the same.",
        "",
    ]
    root = typer.main.get_command(app)
    for name, command in _commands("eyeline", root):
        text = (command.help or "").replace("[bold]", "`").replace("[/bold]", "`").strip()
        lines += [f"## {name}", "", " ".join(text.split()), ""]
        options = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
        if options:
            lines += ["| option | |", "|---|---|"]
            lines += [
                f"| `{', '.join(p.opts) if p.param_type_name == 'option' else p.name}` | {_help(p)} |" for p in options
            ]
            lines.append("")
    return "\n".join(lines)


def _help(parameter: Any) -> str:
    text = getattr(parameter, "help", "") or ""
    return text.replace("[default:", "(default:").replace("|", "/")


def _commands(prefix: str, command: Any) -> list[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        return [(prefix, command)]
    found = []
    for name in sorted(command.commands):
        found += _commands(f"{prefix} {name}", command.commands[name])
    return found


PAGES = {"settings.md": settings_page, "cli.md": cli_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (DOCS / file).write_text(page())
    sys.exit(0)
