"""native/README.md: programs without our package load the library as it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pages
import pytest

from synapse_onnx.runtime import native

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BLOCKS = {
    block.language: block for block in pages.blocks((ROOT / "native" / "README.md").read_text())
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the programs find where they run: the library that was built, and a network."""
    if reason := native.problem():
        pytest.skip(f"there are no native kernels: {reason}")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "synapse_onnx_kernels.so").symlink_to(str(native.library()))
    (tmp_path / "network.onnx").symlink_to(ROOT / "models" / "digits_q8.onnx")
    return tmp_path


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_from_python(folder: Path) -> None:
    _run([sys.executable, "-c", BLOCKS["python"].text], folder)


def test_from_cpp(folder: Path) -> None:
    for need in ("g++", "onnxruntime_cxx_api.h"):
        if reason := pages.missing(need):
            pytest.skip(reason)
    (folder / "main.cpp").write_text(BLOCKS["cpp"].text)
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (folder / "libonnxruntime.so.1").symlink_to(library)
    headers = os.environ.get("ONNXRUNTIME_INCLUDE_DIR", "/usr/include/onnxruntime")
    flags = ["-std=c++17", f"-I{headers}", "-Wl,-rpath,$ORIGIN"]
    _run(["g++", *flags, "main.cpp", "./libonnxruntime.so.1", "-o", "main"], folder)
    _run(["./main"], folder)


def test_a_missing_library_would_be_seen(folder: Path) -> None:
    (folder / "build" / "synapse_onnx_kernels.so").unlink()
    with pytest.raises(AssertionError, match="synapse_onnx_kernels"):
        test_from_python(folder)
