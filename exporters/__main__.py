"""``python -m exporters RECIPE``: run one recipe, found by the name of its file."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import click

import exporters


class Recipes(click.Group):
    """One subcommand a file of this folder, imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the recipes."""
        names = (module.name for module in pkgutil.iter_modules(exporters.__path__))
        return sorted(name for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a recipe."""
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"exporters.{name}").main
        return command


@click.command(cls=Recipes, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, export and verify example networks; each writes to models/."""


if __name__ == "__main__":
    sys.exit(main(prog_name="python -m exporters"))
