"""The command; see the package."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import click
import torch

if __package__ == "":  # run by the name of the folder, which Python then looks for modules in
    sys.path[0] = str(Path(__file__).parents[1])

import right_networks as right


@click.command(help="Export and verify right networks of unusual structure.")
@click.option("--count", default=100, show_default=True, help="How many networks to draw.")
@click.option("--seed", default=1, show_default=True, help="Seed of the first network.")
@click.option("--only", type=int, help="Judge the network of this seed alone.")
@click.option("--native", is_flag=True, help="Verify with native kernels.")
def main(count: int, seed: int, only: int | None, native: bool) -> None:
    """Judge networks one after the other; exit with 1 if anything is wrong."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = right.Table()
    for number in [only] if only is not None else range(seed, seed + count):
        drawn = right.draw(number)
        verdict = right.judge(drawn, native=native)
        table.add(drawn, verdict)
        if verdict.wrong or only is not None:
            click.echo(f"seed {number}: {verdict.kind}: {drawn}\n{verdict.why}")
    click.echo(str(table))
    raise SystemExit(bool(table.wrong))


if __name__ == "__main__":
    main()
