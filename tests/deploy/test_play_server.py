"""A page is served on this machine until it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from play_calls import TONES, call, refused

import synapse_onnx as so
from synapse_onnx.deploy.play import _runtime


@pytest.mark.skipif(os.name == "nt", reason="Windows has no interrupt for one process")
def test_serve_until_interrupted(stand_in: Path) -> None:
    # what a shell starts in the background ignores interrupts, and so do its children
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from synapse_onnx.cli import main; main()"
    command = [sys.executable, "-c", program, "play", str(TONES), "--serve"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        url = ""
        while not url:
            line = process.stdout.readline()
            assert line, "it ended without an address"
            url = "".join(re.findall(r"http://127\.0\.0\.1:\d+/", line))
        types = {}
        for name in ("", "play.js", "model.json", _runtime.SCRIPT, _runtime.PROGRAM):
            with urllib.request.urlopen(url + name, timeout=120) as answer:
                types[name] = answer.headers["Content-Type"].partition(";")[0]
                assert len(answer.read()) == int(answer.headers["Content-Length"]) > 0
        assert types == {
            "": "text/html", "play.js": "text/javascript", "model.json": "application/json",
            _runtime.SCRIPT: "text/javascript", _runtime.PROGRAM: "application/wasm",
        }  # fmt: skip
        for name in ("nothing", "../pyproject.toml", "%2e%2e/pyproject.toml", "/etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + name, timeout=120)
        port = url.rsplit(":", 1)[1].rstrip("/")
        assert f"port {port} cannot be taken" in refused(call(TONES, "--serve", "--port", port))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert errors == ""


def test_it_is_served_on_this_machine_alone() -> None:
    server = so.play.Server({"index.html": b"x"})
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server._server.server_address[0] == "127.0.0.1"
        request = urllib.request.Request(server.url, method="HEAD")
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert answer.headers["Content-Length"] == "1"
            assert answer.read() == b""
    finally:
        server.close()
        thread.join()
    with pytest.raises(OSError, match="refused"), socket.socket() as client:
        client.connect(server._server.server_address)
