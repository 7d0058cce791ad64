"""Timing: contestants take turns within one run, and what is reported is a ratio of medians."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch
from numpy.typing import NDArray

__all__ = ["exponent", "machine", "memory_now", "peak_memory", "percentile", "turns", "write_json"]


def turns(
    runs: Mapping[str, Callable[[], Any]], seconds: float, least: int = 5
) -> dict[str, float]:
    """Return the median time of every run, in seconds.

    They take turns, so that what else the machine does falls on all of them. Before a turn threads
    of the one before, which wait awake for more to do, are given time to fall asleep, and a run
    that is not timed brings the data into the caches. A turn of a fast one repeats it for a
    hundredth of a second, so that a clock's tick does not count.

    Args:
        runs: what is timed, by name.
        seconds: time to spend on all of them together.
        least: turns of each at the least.
    """
    repeats = {}
    for name, run in runs.items():
        run()  # warm up: the first call allocates
        repeats[name] = max(1, min(100, int(0.01 / max(_timed(run, 1), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    count = 0
    while count < least or time.perf_counter() < end:
        for name, run in runs.items():
            time.sleep(0.02)
            run()
            times[name].append(_timed(run, repeats[name]))
        count += 1
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


#: reads a file and an array, runs it twice, and prints how far the peak rose, in KiB
_RUN = """
import re, sys
import numpy as np, onnxruntime as ort
from synapse_onnx.runtime.session import Session
def peak():  # not getrusage: a child inherits its parent's there
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
idle = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
idle.run(None, {"x": np.zeros(1, np.float32)})
before = peak()
session = Session(sys.argv[2], native={"None": None, "True": True, "False": False}[sys.argv[4]])
x = np.load(sys.argv[3])
for _ in range(2):
    session.run(x)
print(peak() - before)
"""


def peak_memory(model: onnx.ModelProto, array: NDArray[Any], native: bool | None = None) -> float:
    """Return the bytes by which running a model raises the peak of a process of its own.

    The process has run another model before, so that ONNX Runtime itself does not count.

    Raises:
        OSError: the system has no /proc to ask.
    """
    if not Path("/proc/self/status").exists():
        raise OSError("peak memory is read from /proc/self/status, which this system lacks")
    nothing = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("idle.onnx", "model.onnx", "x.npy")]
        for file, proto in zip(files, (nothing, model), strict=False):
            Path(file).write_bytes(proto.SerializeToString())
        np.save(files[2], array)
        command = [sys.executable, "-c", _RUN, *files, str(native)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024.0 * int(found.stdout)


def memory_now() -> int:
    """Return the bytes that this process has in memory; 0 where the system has no /proc to ask."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0


def percentile(values: Sequence[float] | NDArray[Any], share: float) -> float:
    """Return the value that a share of all lies at or below."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def exponent(sizes: list[int], times: list[float]) -> float:
    """Return p of times = c * sizes**p between the largest sizes, a factor of ten or so apart."""
    if len(sizes) < 2:
        raise ValueError("an exponent needs two sizes")
    last = len(sizes) - 1
    first = max((i for i in range(last) if sizes[last] >= 8 * sizes[i]), default=last - 1)
    ratio = torch.tensor(times[last] / times[first]).log()
    return float(ratio / torch.tensor(sizes[last] / sizes[first]).log())


def machine() -> dict[str, Any]:
    """Say on what was measured: processor, cores, instruction sets, versions."""
    model, flags = platform.processor(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() == "flags":
                flags = set(value.split())
    sets = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"]
    versions = {}
    for package in ("torch", "onnxruntime", "snntorch", "spikingjelly", "norse"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "instructions": [name for name in sets if name in flags],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def write_json(path: str | os.PathLike[str], results: Mapping[str, Any]) -> None:
    """Write what was measured, with the machine that it was measured on."""
    text = json.dumps({"machine": machine(), **results}, indent=1) + "\n"
    Path(path).write_text(text)
