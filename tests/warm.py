"""Python programs that start with torch imported already, for tests that start many.

Imports take most of the five seconds of a program that exports one small network. A server makes
them once, and forks for each program: ``python -IS warm.py SOCKET`` takes what ``python`` takes,
and runs there with its own arguments, folder, environment and files. Nothing of this package is
imported in the server, so a program begins as in a fresh interpreter, but for other libraries.

Linux alone; elsewhere a program starts an interpreter. So must one that relies on what Python does
at its exit, or on a hash seed of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: a program with these has all that an export imports of other libraries
_IMPORTS = ("torch", "onnx", "onnxruntime", "onnxscript", "sklearn.datasets", "matplotlib.pyplot")


@contextmanager
def started(folder: str) -> Iterator[list[str]]:
    """Run a server while in the context; yield what stands for ``python`` at a command's start.

    The folder gets the socket, and a folder ``bin`` with the commands ``python`` and
    ``synapse-onnx``, which start in the same way.
    """
    import subprocess
    from pathlib import Path

    place = Path(folder)
    real = Path(sys.executable)
    python = [str(real)]
    if sys.platform == "linux":
        python = [str(real), "-IS", __file__, str(place / "socket")]
    (place / "bin").mkdir()
    for name, program in (("python", []), ("synapse-onnx", [str(real.parent / "synapse-onnx")])):
        command = place / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {shlex.join([*python, *program])} "$@"\n')
        command.chmod(0o755)
    if len(python) == 1:
        yield python
        return
    server = subprocess.Popen(
        [str(real), __file__, "--serve", python[-1]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert server.stdin
    assert server.stdout
    try:
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(f"{__file__} does not start")
        yield python
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait()


def ask(server: str, arguments: list[str]) -> int:
    """Have the server run a program with the files of this process; return its exit code."""
    program = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(program).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        socket.send_fds(connection, [len(text).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(text)
        reply = connection.recv(8)
    if not reply:
        sys.exit("warm.py: the server is gone")
    code = int.from_bytes(reply, "big", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def serve(where: str) -> None:
    """Import the libraries, say so, and run programs until the standard input ends."""
    import importlib
    import select

    for name in _IMPORTS:
        importlib.import_module(name)
    _export_once()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(where)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _attend(connection)
            connection.close()


def _export_once() -> None:
    """Let torch's exporter import what it imports at its first use."""
    import gc
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(torch.nn.ReLU(), (torch.ones(2),), dynamo=True, verbose=False)
    gc.collect()
    gc.freeze()


def _attend(connection: socket.socket) -> None:
    """Run one program in a child, and tell how it ended; kill it if nobody waits any more."""
    import select

    import forked

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        text += connection.recv(size - len(text))
    child = os.fork()
    if child == 0:
        connection.close()
        forked.leave(lambda: _run(json.loads(text), files), failed=1)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if ended in ready:
        connection.sendall(code.to_bytes(8, "big", signed=True))
    os._exit(0)


def _run(program: dict[str, object], files: list[int]) -> None:
    """Become the program: ``-c TEXT``, ``-m MODULE`` or a script, and its arguments."""
    import random
    import runpy
    import types

    import numpy as np

    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # whether a file can be sought, or is a terminal, is asked when its object is made
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    random.seed()
    np.random.seed()
    first, *rest = program["arguments"]
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = [path for path in added if path and path not in sys.path] + sys.path[1:]
    if first == "-c":
        sys.argv, sys.path = ["-c", *rest[1:]], ["", *own]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv, sys.path = rest, [os.getcwd(), *own]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path = [first, *rest], [os.path.dirname(os.path.abspath(first)), *own]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
