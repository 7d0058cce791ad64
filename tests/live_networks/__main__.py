"""The command; see the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .collection import frameworks
from .columns import COLUMNS, INTEGERS
from .measure import Measured
from .pages import summary, write_page
from .processes import measured


@click.command(help="Export the live networks and compare them with their frameworks.")
@click.option("--framework", "chosen", multiple=True, help="Only this framework; may be repeated.")
@click.option("--name", "parts", multiple=True, help="Only networks whose names hold this.")
@click.option(
    "--pages",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a page for every framework into this folder.",
)
@click.option("--verify/--no-verify", default=True, help="Whether to run so.verify, too.")
@click.option("--whole/--file", default=True, help="Whether to compare streams and to time, too.")
@click.option("--bits/--no-bits", help="Whether to quantise to 8 bits and compare, too.")
def main(
    chosen: Sequence[str],
    parts: Sequence[str],
    pages: Path | None,
    verify: bool,
    whole: bool,
    bits: bool,
) -> None:
    """Print a row a network, and a summary; exit with 1 if one is not as its entry says."""
    every: list[Measured] = []
    for framework in frameworks().values():
        if chosen and framework.name not in chosen:
            continue
        if framework.missing:
            click.echo(f"left out of {framework.name}: {framework.missing}")
        names = [n for n in framework.networks if not parts or any(part in n for part in parts)]
        if not names:
            continue
        click.echo(f"\n{framework.name}\n{' | '.join(COLUMNS)}")
        rows = []
        for each in measured(framework.name, names, verify=verify, whole=whole, bits=bits):
            rows.append(each)
            mark = "" if each.as_declared else "  <-- not as declared"
            click.echo(" | ".join(column(each) for column in COLUMNS.values()) + mark)
            if each.integers is not None:
                cells = (column(each.integers) for column in INTEGERS.values())
                click.echo(f"    8 bits: {' | '.join(cells)}")
        click.echo(summary(rows))
        every += rows
        if pages is not None:
            write_page(pages, framework.name, rows)
    if every:
        click.echo(f"\nall: {summary(every)}")
    raise SystemExit(not all(each.as_declared for each in every))


if __name__ == "__main__":
    main()
