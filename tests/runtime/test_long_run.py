"""Streams for long, and many at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import long_run
import numpy as np
import pytest

import synapse_onnx as so

pytestmark = pytest.mark.slow

MODELS = Path(__file__).parents[2] / "models"


def in_a_process(name: str, before: str = "") -> tuple[int, int]:
    """Run in a process of its own, whose heap has no room in which what is kept could hide."""
    lines = f"{before}\nimport long_run\nfrom pathlib import Path\n"
    lines += f"print(*long_run.run(Path({str(MODELS / name)!r}), 3000))"
    ended = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    differ, grown = map(int, ended.stdout.split())
    return differ, grown


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory was taken")
@pytest.mark.parametrize("name", ["tones_stream.onnx", "drift_stream.onnx"])
def test_a_share_of_a_long_run(name: str) -> None:
    differ, grown = in_a_process(name)
    assert differ == 0
    assert grown < long_run.MOST


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory was taken")
def test_a_step_that_keeps_memory_would_be_seen() -> None:
    keeping = """
from synapse_onnx.runtime.stream import Stream
kept, step = [], Stream.step
def keeping(stream, *inputs):
    kept.append(bytearray(b"x" * 4000))
    return step(stream, *inputs)
Stream.step = keeping
"""
    _, grown = in_a_process("tones_stream.onnx", keeping)
    assert grown > long_run.MOST


def test_eight_streams_share_a_session() -> None:
    session = so.Session(MODELS / "tones_stream.onnx")
    draw = np.random.default_rng(0)
    inputs = [(draw.integers(-8, 9, (2, 1, 150)) / 8).astype(np.float32) for _ in range(8)]
    expected = [session.run(x) for x in inputs]
    assert len({y.tobytes() for y in expected}) == 8
    found: dict[int, np.ndarray] = {}
    start = threading.Barrier(8)

    def work(i: int) -> None:
        stream = session.stream(batch=2)
        start.wait()
        parts = [stream.run(inputs[i][..., t : t + 1]) for t in range(inputs[i].shape[-1])]
        found[i] = np.concatenate(parts, axis=-1)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, y in enumerate(expected):
        np.testing.assert_array_equal(found[i], y)
