"""Timing: contestants take turns within one run, and what is reported is a ratio of medians."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper


def turns(
    runs: Mapping[str, Callable[[], Any]],
    seconds: float,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
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
        clock: what times them; ``time.thread_time`` is right where one thread computes.
    """
    repeats = {}
    for name, run in runs.items():
        run()  # warm up: the first call allocates
        repeats[name] = max(1, min(100, int(0.01 / max(timeit(run, number=1), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    count = 0
    while count < least or time.perf_counter() < end:
        for name, run in runs.items():
            time.sleep(0.02)
            run()
            took = timeit(run, timer=clock, number=repeats[name])
            times[name].append(took / repeats[name])
        count += 1
    return {name: statistics.median(values) for name, values in times.items()}


def parsed(graph: str, weights: Mapping[str, NDArray[Any]] | None = None) -> onnx.ModelProto:
    """Return the model of a graph in ONNX's text form, with these initialisers besides its own."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}')
    for name, array in (weights or {}).items():
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        model.graph.initializer.append(tensor)
    return model


def session_of(model: onnx.ModelProto, **settings: Any) -> ort.InferenceSession:
    """Load a model in ONNX Runtime on the CPU, with these attributes or entries of its options."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # a constant that one way of several does not need is no news
    for key, value in settings.items():
        if "." in key:
            options.add_session_config_entry(key, value)
        else:
            setattr(options, key, value)
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


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
    nothing = parsed("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("idle.onnx", "model.onnx", "x.npy")]
        onnx.save(nothing, files[0])
        onnx.save(model, files[1])
        np.save(files[2], array)
        command = [sys.executable, "-c", _RUN, *files, str(native)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024.0 * int(found.stdout)


def memory_now() -> int:
    """Return the bytes that this process has in memory; 0 where the system has no /proc to ask."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0


def exponent(sizes: list[int], times: list[float]) -> float:
    """Return p of times = c * sizes**p between the largest sizes, a factor of ten or so apart."""
    if len(sizes) < 2:
        raise ValueError("an exponent needs two sizes")
    last = len(sizes) - 1
    first = max((i for i in range(last) if sizes[last] >= 8 * sizes[i]), default=last - 1)
    return math.log(times[last] / times[first]) / math.log(sizes[last] / sizes[first])


def machine() -> dict[str, Any]:
    """Say on what was measured: processor, cores, instruction sets, versions."""
    info = Path("/proc/cpuinfo")
    lines = (info.read_text() if info.exists() else "").splitlines()
    facts = {name.strip(): text.strip() for name, _, text in (x.partition(":") for x in lines)}
    flags = facts.get("flags", "").split()
    sets = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"]
    versions = {}
    for package in ("torch", "onnxruntime", "snntorch", "spikingjelly", "norse"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "processor": facts.get("model name", platform.processor()),
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
    Path(path).write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
