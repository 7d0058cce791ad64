"""The command; see the package."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import click
import torch

if __package__ == "":  # run by the name of the folder, which Python then looks for modules in
    sys.path[0] = str(Path(__file__).parents[1])

import random_networks as rn

#: networks that are drawn at once: what fails among them is shrunk
ROUND = 25


@click.command(help="Compare random networks in torch and in ONNX Runtime.")
@click.option("--minutes", type=float, help="How long to draw networks; 10 by default.")
@click.option("--count", type=int, help="How many networks to draw, in place of a time.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first 25 networks.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=rn.CASES, help="Where failures go."
)
@click.option("--case", "file", type=click.Path(path_type=Path), help="Judge this case alone.")
def main(
    minutes: float | None, count: int | None, seed: int, folder: Path, file: Path | None
) -> None:
    """Judge random networks for some time, some number of them, or one case again."""
    torch.set_num_threads(1)
    if file is not None:
        verdict = rn.judge(rn.read(file))
        click.echo("\n".join(verdict.problems) or verdict.refused or "equal")
        raise SystemExit(bool(verdict.problems))
    if minutes is None:
        minutes = 10.0 if count is None else math.inf
    tally, until = rn.Tally(), time.monotonic() + 60 * minutes
    left = math.inf if count is None else count
    while left > 0 and time.monotonic() < until:
        before = len(tally.failures)
        rn.hunt(seed, int(min(ROUND, left)), tally, until=until)
        for case, why in tally.failures[before:]:
            click.echo(f"seed {seed}: {rn.write(case, why, folder)}\n{why}")
        click.echo(f"seed {seed}: {tally}")
        seed, left = seed + 1, left - ROUND
    raise SystemExit(bool(tally.failures))


if __name__ == "__main__":
    main()
