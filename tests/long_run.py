"""Stream a committed model step by step, for long: ``python tests/long_run.py --steps 1000000``.

Every output must equal that of the whole sequence in one call, and the process must not grow.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import synapse_onnx as so

ROOT = Path(__file__).parents[1]


def resident() -> int:
    """Bytes of memory that this process has, on Linux."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


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
            begin = resident()
        found[..., t] = stream.step(x[..., t])
    return int((found != whole).sum()), resident() - begin


@click.command(help=__doc__)
@click.option("--steps", type=click.IntRange(min=10), default=1_000_000, show_default=True)
@click.option("--model", "name", default="tones_stream", show_default=True)
@click.option("--native/--portable", default=None)
def main(steps: int, name: str, native: bool | None) -> None:
    """Run one model and print what came of it."""
    differ, grown = run(ROOT / "models" / f"{name}.onnx", steps, native=native)
    click.echo(f"{name}: {steps:,} steps, {differ} values differ, memory {grown / 1e3:+.0f} kB")
    raise SystemExit(1 if differ or grown > 1 << 22 else 0)


if __name__ == "__main__":
    main()
