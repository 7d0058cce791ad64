"""Kill calls of the command line at random moments, and look at what is left of the file.

    python tests/kills.py --count 20 --seed 1

Each call runs in a process forked from this one and is to replace a file. It is killed (SIGKILL) at
a random moment of the time that it takes, or while it writes. Afterwards the old file is whole or
the new one is. With ``--pairs``, two calls write to one path at once, and nothing is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import fuzz
import numpy as np
import torch

#: what writes which file; {0} is another number in each of two calls
CALLS = {
    "export": (["export", "net.py:build", "--shape", "6", "-o", "o.onnx"], "o.onnx"),
    "run": (["run", "m.onnx", "-i", "{0}.npy", "-o", "o.npz"], "o.npz"),
    "verify": (
        ["verify", "net.py:build", "n.onnx", "--weights", "w.pt", "--report", "o.html"],
        "o.html",
    ),
}


def start(folder: Path, arguments: list[str], make: Callable[[], None] = lambda: None) -> int:
    child = os.fork()
    if child == 0:
        fuzz.child(arguments, folder, make)
    return child


def slowly(begun: int) -> None:
    """Write in small parts, and tell when the first is on its way."""
    real = os.fdopen

    def fdopen(handle: int, mode: str) -> object:
        file = real(handle, mode, buffering=0)
        write = file.write

        class Slow:
            def __enter__(self) -> Slow:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def write(self, data: bytes) -> None:
                for i in range(0, len(data), 1 + len(data) // 20):
                    write(data[i : i + 1 + len(data) // 20])
                    os.write(begun, b"x")
                    time.sleep(0.01)

            flush, fileno = file.flush, file.fileno

        return Slow()

    os.fdopen = fdopen


@click.command()
@click.option("--count", default=20, show_default=True, help="Kills of each call.")
@click.option("--seed", default=1, show_default=True)
@click.option("--only", type=click.Choice(list(CALLS)), multiple=True, help="Calls to make.")
@click.option("--pairs", is_flag=True, help="Two calls at once, and no kill.")
def command(count: int, seed: int, only: tuple[str, ...], pairs: bool) -> None:
    """Kill calls, and leave with exit code 1 where a file was broken."""
    torch.set_num_threads(1)
    cases, draw, wrong = fuzz.Cases(seed), np.random.default_rng(seed), 0
    model, spikes = cases.models["digits_q8.onnx"], cases.inputs["digits_q8.onnx"]
    for name in only or CALLS:
        arguments, target = CALLS[name]
        with tempfile.TemporaryDirectory(prefix="kills-") as place:
            folder = Path(place)
            files = {"m.onnx": model, "1.npy": fuzz.npy(spikes), "2.npy": fuzz.npy(1 - spikes)}
            files |= {"net.py": cases.source, "w.pt": cases.checkpoint, "n.onnx": cases.exported}
            for file, data in files.items():
                (folder / file).write_bytes(data)
            calls = [[part.format(i) for part in arguments] for i in (1, 2)]
            begin = time.perf_counter()
            results = []
            for call in calls:
                (folder / target).write_bytes(fuzz.OLD)
                os.waitpid(start(folder, call), 0)
                results.append((folder / target).read_bytes())
            took = (time.perf_counter() - begin) / 2
            found: Counter[str] = Counter()
            for i in range(count):
                (folder / target).write_bytes(fuzz.OLD)
                if pairs:
                    for child in [start(folder, call) for call in calls]:
                        os.waitpid(child, 0)
                else:
                    kill(folder, calls[0], draw, took, slow=i % 2 == 1)
                data = (folder / target).read_bytes()
                new = fuzz.whole(folder / target) and (name == "verify" or data in results)
                what = "old" if data == fuzz.OLD else "new" if new else "broken"
                found[what] += 1
            left = [p.name for p in folder.iterdir() if p.suffix == Path(target).suffix]
            taken = sorted(set(left) - {*files, target})
            wrong += found["broken"] + len(taken) + (found["old"] if pairs else 0)
            print(name, dict(found), f"taken for a file: {taken}" if taken else "", flush=True)
    sys.exit(1 if wrong else 0)


def kill(
    folder: Path, call: list[str], draw: np.random.Generator, took: float, *, slow: bool
) -> None:
    """Kill a call: at any moment, or at a moment of its writing."""
    if slow:
        begun, end = os.pipe()
        child = start(folder, call, lambda: slowly(end))
        os.close(end)
        for _ in range(int(draw.integers(1, 20))):
            if not os.read(begun, 1):
                break
        os.close(begun)
    else:
        child = start(folder, call)
        time.sleep(draw.random() * took)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    command()
