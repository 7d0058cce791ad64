"""The group of commands: finds them, and turns exceptions into a sentence and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from synapse_onnx._discovery import public_modules
from synapse_onnx.errors import SynapseError

__all__ = ["DIFFERENT", "Group", "few", "gist", "reason"]

DIFFERENT, AT_FAULT, BUG, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 130, 141


class Group(click.Group):
    """Commands, each the ``command`` of a file of this folder.

    A file is imported when its command is called: no command waits for the imports of another.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the files."""
        return public_modules([os.path.dirname(__file__)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or None where there is no such file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"synapse_onnx.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and leave with its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # ✓ on a terminal that has none
        path = list(sys.path)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            _fail(_usage(error), AT_FAULT)
        except SynapseError as error:
            _fail(str(error), AT_FAULT)
        except MemoryError:
            _fail("there is not enough memory; take fewer samples, steps or neurons", AT_FAULT)
        except click.Abort:
            _fail("interrupted", INTERRUPTED)
        except Exception as error:  # a bug; its exit code must not be that of "differs"
            traceback.print_exc()
            _fail(
                f"unexpected {type(error).__name__}: {gist(error)}; this is a bug in "
                f"synapse-onnx, please report it with the lines above",
                BUG,
            )
        finally:
            sys.path[:] = path  # without the folder of SOURCE
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a closed pipe ends it quietly."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # click's main would exit with code 1, "differs"
            # Python flushes again at exit, and would print the error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result


def _fail(sentence: str, code: int) -> NoReturn:
    label = click.style("error:", fg="red", bold=True)
    click.echo(f"{label} {' '.join(sentence.split())}", err=True)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """Return click's error as a sentence that points to the help."""
    message = error.format_message().strip().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{message}; see '{context.command_path} --help'" if context else message


def gist(error: BaseException) -> str:
    """Return the first line of a message, and the second if the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    text = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    text = text.rstrip(".")
    return text if len(text) <= 300 else text[:297] + "..."


def reason(error: Exception) -> str:
    """Return the reason why a file cannot be read, without its name."""
    return (error.strerror or gist(error)) if isinstance(error, OSError) else gist(error)


def few(names: Sequence[str], most: int = 3) -> str:
    """List the first names, and the number of others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
