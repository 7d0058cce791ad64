"""One call in a process of its own, and what is at fault with it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import nir  # noqa: F401  imported once, before the fork
import numpy as np
import onnx
import onnxruntime  # noqa: F401
from forked import leave
from google.protobuf.message import DecodeError

from synapse_onnx.cli import main

from ._cases import Case

#: seconds and bytes that a case may take
SECONDS, MEMORY = 10, 2 << 30

#: what stands in the target before a call
OLD = b"what was there before"


def run(case: Case, folder: Path, make: Callable[[], None] = lambda: None) -> tuple[str, list[str]]:
    """Run a case in a process of its own; return how it ended, and what is at fault."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    target = folder / case.target if case.target else None
    if target is not None:
        target.write_bytes(OLD)
    begin = time.perf_counter()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        # what the child begins with is less than what its parent has: pages of files are not shared
        os.write(writing, str(_resident()).encode())
        os.close(writing)
        child(case.arguments, folder, make)
    os.close(writing)
    resident = int(os.read(reading, 32))  # as soon as it is there; the child goes on
    os.close(reading)
    status, usage = _wait(pid)
    took = time.perf_counter() - begin
    faults = []
    code = os.waitstatus_to_exitcode(status)
    error = (folder / ".stderr").read_text(errors="replace")
    if code == -signal.SIGALRM or took > SECONDS + 5:
        faults.append(f"hang: {took:.1f} s")
    elif code < 0:
        faults.append(f"signal {-code}")
    elif code not in (0, 1, 2):
        faults.append(f"exit code {code}: {error.splitlines()[-1:]}")
    if "Traceback" in error:
        faults.append("traceback")
    elif error.count("\n") > 1:
        faults.append(f"{error.count(chr(10))} lines of stderr: {error[:300]}")
    if code == 2 and not error.startswith("error: "):
        faults.append(f"no sentence: {error[:300]!r}")
    grown = usage.ru_maxrss * 1024 - resident
    if grown > MEMORY:
        faults.append(f"memory: {grown / 2**30:.1f} GiB")
    faults += _left(case, folder, target, code)
    return str(code), faults


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def child(arguments: list[str], folder: Path, make: Callable[[], None]) -> NoReturn:
    """Call the command line, and end the process."""
    os.setsid()
    os.chdir(folder)
    for number, name in ((1, ".stdout"), (2, ".stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2 * MEMORY, taken + 2 * MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)

    def work() -> None:
        make()
        main(arguments, prog_name="synapse-onnx")

    leave(work, failed=99)


def _wait(child: int) -> tuple[int, Any]:
    """Wait for a process, and end what it has started."""
    deadline = time.perf_counter() + SECONDS + 10
    while time.perf_counter() < deadline:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return status, usage


def _left(case: Case, folder: Path, target: Path | None, code: int) -> list[str]:
    """Say what is wrong with the files that a call has left."""
    faults = []
    known = {".stdout", ".stderr", "__pycache__", *case.files}
    names = {path.name for path in folder.iterdir()} - known
    litter = sorted(name for name in names if name.startswith("."))
    if litter:
        faults.append(f"litter: {', '.join(litter)}")
    if target is not None:
        data = target.read_bytes()
        if code == 2 and data != OLD:
            faults.append("the target was changed by a call that failed")
        elif data != OLD and not whole(target):
            faults.append(f"half a file: {target.name}")
    return faults


def whole(path: Path) -> bool:
    """Whether a file that was written can be read to its end."""
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".npy":
                np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return all(file[name] is not None for name in file.files)
            case ".html":
                return data.rstrip().endswith(b"</html>")
            case ".onnx":
                onnx.checker.check_model(onnx.ModelProto.FromString(data))
    except (OSError, ValueError, DecodeError, zipfile.BadZipFile, onnx.checker.ValidationError):
        return False
    return True
