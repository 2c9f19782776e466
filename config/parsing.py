"""Command lines of settings, and what all commands have in common."""

import argparse
import dataclasses
import difflib
import io
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.settings import KINDS, Mistakes

ROOT = Path(__file__).parent.parent


def command_line(cls: type, argv: list[str] | None, description: str) -> dict[str, Any]:
    """Parse `argv` into the settings that it names; `--help` lists them all."""
    given, mistakes = parse(cls, argv, description)
    if mistakes:
        raise Mistakes(mistakes)
    return given


def parse(cls: type, argv: list[str] | None, description: str) -> tuple[dict[str, Any], list[str]]:
    """The settings that `argv` names, and a line for each mistake in it."""
    parser = _Parser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for field in dataclasses.fields(cls):
        flag, text = "--" + field.name.replace("_", "-"), f"{field.metadata['help']} (default: {field.default!r})"
        if field.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif field.type is tuple:
            parser.add_argument(flag, metavar="WORD", nargs="+", action="extend", help=text.replace("%", "%%"))
        else:
            parser.add_argument(flag, metavar=field.type.__name__.upper(), help=text.replace("%", "%%"))
    known, unknown = parser.parse_known_args(argv)
    given, mistakes = {}, _unrecognized(unknown, [field.name for field in dataclasses.fields(cls)])
    for key, text in vars(known).items():
        try:
            given[key] = _parsed(key, text, cls.__dataclass_fields__[key].type)
        except ValueError as error:
            mistakes.append(str(error))
    return given, mistakes


def _unrecognized(words: list[str], names: list[str]) -> list[str]:
    """A line for each option of `words` that there is not, with its values."""
    options: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not options:
            options.append([])
        options[-1].append(word)
    lines = []
    for option in options:
        name = option[0].partition("=")[0].removeprefix("--").replace("-", "_")
        close = difflib.get_close_matches(name, names, n=1) if option[0].startswith("--") else []
        hint = f"; did you mean --{close[0].replace('_', '-')}?" if close else ""
        lines.append(f"unrecognized arguments: {' '.join(option)}{hint}")
    return lines


def run_script(main: Callable[[], int | None]) -> int:
    """Call `main` and return the exit code: its own, and 2 for a user's mistake, told in one line without a traceback;
    several mistakes in a line each.

    A user's mistake is a ValueError (a setting, a file's content) or an OSError (a path, a full disk). A MemoryError
    gets one line too, and exit code 1. What a terminal cannot show is printed with backslashes. Where nobody reads any
    more, the exit code is 141 and nothing is said, as of a process that SIGPIPE has ended.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        cure = "; the locale cannot name a file: set PYTHONUTF8=1" if isinstance(error, UnicodeEncodeError) else ""
        told = [" ".join(str(line).split()) for line in getattr(error, "lines", [error])]
        print("error: " + "\n  ".join(told) + cure, file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"error: {error or 'out of memory'}", file=sys.stderr)
        return 1


def to_copy(script: str, *words: str) -> str:
    """A command of this project as it can be copied from where it is printed, into a shell in the same folder."""
    return shlex.join(["python", os.path.relpath(ROOT / script), *words])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise ValueError(message)  # argparse would print the whole usage above its one line


def _parsed(key: str, text: Any, kind: type) -> Any:
    """The value that `text`, a word of the command line, stands for."""
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{key} = {text!r}: must be {KINDS[kind]}") from None
