"""The command; see the package."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

import click

if __package__ == "":  # run by the name of the folder, which Python then looks for modules in
    sys.path[0] = str(Path(__file__).parents[1])

from mutation.search import mutate, report
from mutation.selection import ROOT, sources


@click.command(help="Plant faults in the package, and see that its tests notice.")
@click.argument("paths", nargs=-1)
@click.option("--sample", type=int, help="Mutants of each file, drawn at random; all without it.")
@click.option("--seed", default=1, show_default=True)
@click.option("--workers", default=os.cpu_count() or 1, show_default=True)
@click.option("--spread", default=6, show_default=True, help="Tests of a function with parameters.")
@click.option("--least", default=0.9, show_default=True, help="Score that each run must reach.")
@click.option("--json", "target", type=click.Path(dir_okay=False, path_type=Path))
def command(
    paths: tuple[str, ...], sample: int | None, seed: int, workers: int, spread: int,
    least: float, target: Path | None,
) -> None:  # fmt: skip
    """Run mutants, print a table and the survivors, and leave with 1 below the score."""
    logging.disable(logging.WARNING)  # torch tells of packages that are not there
    os.environ.update(OMP_NUM_THREADS="1", SYNAPSE_ONNX_LIBRARY="none")
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    begun = time.monotonic()
    results = mutate(sources(paths), sample, seed, workers, spread)
    total = report(results)
    print(f"{time.monotonic() - begun:.0f} s")
    if target is not None:
        rows = [
            {"file": r.mutant.path, "line": r.mutant.line, "old": r.mutant.old,
             "new": r.mutant.new, "caught": r.by, "excuse": r.excuse}
            for r in results
        ]  # fmt: skip
        target.write_text(json.dumps({"score": total, "mutants": rows}, indent=1) + "\n")
    sys.exit(0 if total >= least else 1)


if __name__ == "__main__":
    command()
