"""A share of the cases of ``tests/fuzz``, and that it sees each kind of fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "fuzz"

if sys.platform != "linux":
    pytest.skip("the fuzzer forks, and asks /proc for memory: Linux alone", allow_module_level=True)

import fuzz  # noqa: E402


@pytest.mark.slow
def test_no_case_is_at_fault(tmp_path: Path) -> None:
    call = [sys.executable, str(FUZZ), "--count", "60", "--seed", "2", "--keep", str(tmp_path)]
    ended = subprocess.run(call, capture_output=True, text=True, check=False, timeout=3600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("60 cases, 0 at fault\n")
    kinds = {line.split()[0] for line in ended.stdout.splitlines()[:-1]}
    assert kinds == {"onnx", "net", "nir", "npy", "npz", "csv", "state", "pt", "arguments"}


def test_a_case_is_made_of_its_number() -> None:
    one, two = fuzz.Cases(5), fuzz.Cases(5)
    for number in (3, 11, 40):
        assert one.make(number).arguments == two.make(number).arguments
    files = one.make(3).files
    assert files
    assert files != one.make(4).files


def _traceback() -> None:
    raise RuntimeError("planted")


def _hang() -> None:
    time.sleep(3600)


def _memory() -> None:
    bytearray(b"x") * (
        fuzz.calls.MEMORY * 3 // 2
    )  # beyond the bound, within what the process may take


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _talk() -> None:
    sys.stderr.write("one\ntwo\n")


def _half() -> None:
    Path("o.npz").write_bytes(b"PK\x03\x04")
    os._exit(0)


def _litter() -> None:
    Path(".o.npz.abc").write_bytes(b"")


FAULTS = {
    "traceback": _traceback, "hang": _hang, "memory": _memory, "signal 9": _crash,
    "lines of stderr": _talk, "half a file": _half, "litter": _litter,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("said", FAULTS)
def test_it_sees(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault: Callable[[], None] = FAULTS[said]
    if fault is _memory:
        monkeypatch.setattr(fuzz.calls, "MEMORY", 1 << 28)
    case = fuzz.Case("onnx", ["inspect", "none.onnx"], {}, "o.npz")
    (tmp_path / "good").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        assert fuzz.run(case, tmp_path / "good") == ("2", [])
        if fault is _hang:  # the others end by themselves, late on a busy machine
            monkeypatch.setattr(fuzz.calls, "SECONDS", 2)
        _, faults = fuzz.run(case, tmp_path, fault)
    assert any(said in text for text in faults), faults
