"""Faults around the files that are written: full disks, closed folders, kills, two at once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.files import write_atomically

ROOT = Path(__file__).parents[2]
OLD = b"what was there before"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("i.npy", np.ones((1, 1, 8, 8, 4), np.float32))
    np.save("s.npy", np.ones((1, 1, 4), np.float32))
    Path("net.py").write_text(
        "import synapse_onnx as so\n"
        "N = {'threshold': 1.0, 'current_decay': 0.25, 'voltage_decay': 0.05}\n"
        "def build():\n    return so.block.cuba.Dense(N, 6, 5)\n"
    )
    return tmp_path


CALLS = {
    "export": ["export", "net.py:build", "--shape", "6", "-o", "o.onnx"],
    "run": ["run", str(ROOT / "models/digits_q8.onnx"), "-i", "i.npy", "-o", "o.npz"],
    "save": [
        "run", str(ROOT / "models/tones_stream.onnx"), "-i", "s.npy", "-o", "a.npz",
        "--save", "o.npz",
    ],
    "verify": [
        "verify", str(ROOT / "tests/reference/net_cuba_mlp.net"),
        str(ROOT / "models/lava_net_cuba_mlp.onnx"), "--set", "delay_shift=true",
        "--report", "o.html",
    ],
}  # fmt: skip


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def closed(*arguments: Any, **more: Any) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


FAULTS: dict[str, tuple[str, Callable[..., None], str]] = {
    "disk full": ("os.fsync", full, "No space left on device"),
    "closed folder": ("tempfile.mkstemp", closed, "Permission denied"),
    "no replacement": ("os.replace", closed, "Permission denied"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_a_file_that_cannot_be_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    target = next(Path(part) for part in CALLS[name] if part.startswith("o."))
    target.write_bytes(OLD)
    before = sorted(here.iterdir())
    where, fails, why = FAULTS[fault]
    monkeypatch.setattr(f"synapse_onnx.files.{where}", fails)
    result = CliRunner().invoke(main, CALLS[name])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"cannot be written: {why}\n")
    assert target.read_bytes() == OLD
    left = set(here.iterdir()) - set(before)
    assert {path.name for path in left} <= {"__pycache__"}


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """A disk that is full in the middle of a file, as the system itself says it."""
    pytest.importorskip("resource", reason="limits are those of Unix")
    code = (
        "import resource, sys\n"
        "from synapse_onnx.errors import InputError\n"
        "from synapse_onnx.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "write_atomically(sys.argv[1], b'new')\n"
        "try:\n    write_atomically(sys.argv[1], bytes(1 << 20))\n"
        "except InputError as error:\n    print(error)\n"
    )
    target = tmp_path / "o.npz"
    call = [sys.executable, "-c", code, str(target)]
    ended = subprocess.run(call, capture_output=True, text=True, check=True, timeout=600)
    assert ended.stdout == f"{target} cannot be written: File too large\n"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_read_only_folder_is_known_before_the_work(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    (here / "models").mkdir()
    for name in ("export", "run", "verify"):
        call = [
            part.replace("o.", "models/o.") if part[:2] == "o." else part for part in CALLS[name]
        ]
        monkeypatch.setattr(so.Session, "__init__", closed)  # no work is done
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 2
        assert result.stderr.endswith("cannot be written: the folder models is read-only\n")


def test_an_interrupt_behind_the_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(*paths: str) -> None:
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr("synapse_onnx.files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def kills(*arguments: str) -> str:
    """What tests/kills.py says of the files that it found."""
    call = [sys.executable, str(Path(__file__).parents[1] / "kills.py"), *arguments]
    ended = subprocess.run(call, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc: Linux alone")


@pytest.mark.slow
@linux
def test_killed_at_any_moment() -> None:
    said = kills("--count", "12", "--only", "run") + kills("--count", "2", "--only", "verify")
    assert "broken" not in said
    assert said.startswith("run ")
    assert "verify " in said


@pytest.mark.slow
@linux
def test_killed_while_it_exports() -> None:
    assert "broken" not in kills("--count", "2", "--only", "export")


@pytest.mark.slow
@linux
def test_two_calls_that_write_one_file() -> None:
    assert kills("--count", "3", "--only", "run", "--pairs") == "run {'new': 3} \n"
