"""Stream a committed model step by step, for long: ``python tests/long_run.py --steps 1000000``.

Every output must equal that of the whole sequence in one call, and the process must not grow.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import synapse_onnx as so

ROOT = Path(__file__).parents[1]


#: bytes by which the process may grow: some pages of the heap, and far less than a byte a step
MOST = 1 << 20


def taken() -> int:
    """Bytes of memory that this process has taken, on Linux.

    Pages of libraries do not count: the system drops them when it likes, and they come back.
    """
    text = Path("/proc/self/status").read_text()
    # what was paged out is taken as well
    return sum(int(text.split(f"{part}:")[1].split()[0]) for part in ("RssAnon", "VmSwap")) * 1024


def run(model: Path, steps: int, *, native: bool | None = None) -> tuple[int, int]:
    """Return how many values differ, and by how many bytes the process grew from a tenth on."""
    session = so.Session(model, native=native)
    (info,) = (value for value in session.session.get_inputs() if value.name in session.inputs)
    draw = np.random.default_rng(0)
    x = (draw.integers(-8, 9, (1, *info.shape[1:-1], steps)) / 8).astype(np.float32)
    whole = session.run(x)
    stream = session.stream()
    found = np.zeros_like(whole)  # all that is kept, taken before memory is measured
    found.fill(np.nan)
    begin = 0
    for t in range(steps):
        if t == steps // 10:
            begin = taken()
        found[..., t] = stream.step(x[..., t])
    grown = taken() - begin  # before the comparison, which takes a byte a value
    return int((found != whole).sum()), grown


@click.command(help=__doc__)
@click.option("--steps", type=click.IntRange(min=10), default=1_000_000, show_default=True)
@click.option("--model", "name", default="tones_stream", show_default=True)
@click.option("--native/--portable", default=None)
def main(steps: int, name: str, native: bool | None) -> None:
    """Run one model and print what came of it."""
    differ, grown = run(ROOT / "models" / f"{name}.onnx", steps, native=native)
    click.echo(f"{name}: {steps:,} steps, {differ} values differ, memory {grown / 1e3:+.0f} kB")
    raise SystemExit(1 if differ or grown > MOST else 0)


if __name__ == "__main__":
    main()
