"""The command; see the package."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click
import torch

if __package__ == "":  # run by the name of the folder, which Python then looks for modules in
    sys.path[0] = str(Path(__file__).parents[1])

from fuzz import Cases, run
from synapse_onnx.cli import main
from synapse_onnx.readers import all_readers


@click.command()
@click.option("--count", default=1000, show_default=True, help="Cases to run.")
@click.option("--seed", default=1, show_default=True, help="Other cases for every seed.")
@click.option("--first", default=0, show_default=True, help="Number of the first case.")
@click.option("--only", multiple=True, help="Kinds to run alone (repeatable).")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for cases at fault.")
def command(count: int, seed: int, first: int, only: tuple[str, ...], keep: Path | None) -> None:
    """Run cases, and leave with exit code 1 where one was at fault."""
    os.environ.setdefault("SYNAPSE_ONNX_LIBRARY", "none")
    torch.set_num_threads(1)
    all_readers()
    for name in main.list_commands(click.Context(main)):
        main.get_command(click.Context(main), name)
    cases = Cases(seed)
    counts: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for number in range(first, first + count):
        case = cases.make(number)
        if only and case.kind not in only:
            continue
        if sum(counts.values()) % 500 == 499:
            print(f"at case {number}, {wrong} at fault", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            ended, faults = run(case, Path(name))
            if any(fault.startswith("hang") for fault in faults):
                ended, faults = run(case, Path(name))  # the machine may have stood still
            counts[case.kind, ended] += 1
            if not faults:
                continue
            wrong += 1
            print(f"{seed}/{number} {case.kind} {case.arguments}: {'; '.join(faults)}", flush=True)
            if keep is not None:
                kept = keep / f"{seed}-{number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(name, kept)
    for kind in cases.kinds:
        codes = {code: n for (which, code), n in sorted(counts.items()) if which == kind}
        if codes:
            text = ", ".join(f"{n} exit {code}" for code, n in codes.items())
            print(f"{kind:10} {sum(codes.values()):6}  {text}")
    print(f"{sum(counts.values())} cases, {wrong} at fault")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    command()
