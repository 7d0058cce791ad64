"""The command; see the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from .collection import Framework, frameworks
from .columns import COLUMNS
from .measure import Measured
from .processes import measured


@click.command(help="Export the live networks and compare them with their frameworks.")
@click.option("--framework", "chosen", multiple=True, help="Only this framework; may be repeated.")
@click.option("--name", "parts", multiple=True, help="Only networks whose names hold this.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table to this file.")
@click.option("--verify/--no-verify", default=True, help="Whether to run so.verify, too.")
@click.option("--whole/--file", default=True, help="Whether to compare streams and to time, too.")
def main(
    chosen: Sequence[str],
    parts: Sequence[str],
    markdown: Path | None,
    verify: bool,
    whole: bool,
) -> None:
    """Print a row a network, and a summary; exit with 1 if one is not as its entry says."""
    every: list[Measured] = []
    pages: list[str] = []
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
        for each in measured(framework.name, names, verify=verify, whole=whole):
            rows.append(each)
            mark = "" if each.as_declared else "  <-- not as declared"
            click.echo(" | ".join(column(each) for column in COLUMNS.values()) + mark)
        click.echo(_summary(rows))
        every += rows
        pages.append(_markdown(framework, rows))
    if every:
        click.echo(f"\nall: {_summary(every)}")
    if markdown is not None:
        markdown.write_text("\n".join([*pages, _summary(every), ""]))
    raise SystemExit(not all(each.as_declared for each in every))


def _summary(rows: Sequence[Measured]) -> str:
    verdicts = Counter(each.verdict for each in rows)
    surprises = sum(not each.as_declared for each in rows)
    silent = sum(bool(each.silent) for each in rows)
    return (
        f"{len(rows)} networks: {verdicts['right']} right, {verdicts['refused']} refused, "
        f"{verdicts['WRONG']} wrong, {verdicts['exception']} exceptions; "
        f"{surprises} not as declared, {silent} with silent layers"
    )


def _markdown(framework: Framework, rows: Sequence[Measured]) -> str:
    lines = [
        f"## {framework.name}\n",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *(
            "| " + " | ".join(c(each).replace("|", "\\|") for c in COLUMNS.values()) + " |"
            for each in rows
        ),
        f"\n{_summary(rows)}\n",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
