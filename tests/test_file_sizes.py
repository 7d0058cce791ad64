"""No file is too long to be read at once: 600 lines of C++, 500 of Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]

NATIVE_LINES = 600
PYTHON_LINES = 500


def native_files() -> list[Path]:
    return [path for path in (ROOT / "native").rglob("*") if path.suffix in {".h", ".cpp"}]


def python_files() -> list[Path]:
    """The modules of the package, of the programs around it, and of the tests."""
    folders = ("synapse_onnx", "native", "exporters", "benchmarks", "tests")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def too_long(paths: Iterable[Path], limit: int) -> list[str]:
    """One line for each file of more than ``limit`` lines, the longest first."""
    counts = [(len(path.read_text("utf-8").splitlines()), path) for path in paths]
    return [
        f"{name(path)}: {count} lines, at most {limit} are allowed"
        for count, path in sorted(counts, reverse=True)
        if count > limit
    ]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def test_native_files_are_short() -> None:
    assert len(native_files()) > 30
    offenders = too_long(native_files(), NATIVE_LINES)
    assert not offenders, "\n".join(offenders)


def test_python_files_are_short() -> None:
    assert len(python_files()) > 250
    offenders = too_long(python_files(), PYTHON_LINES)
    assert not offenders, "\n".join(offenders)


def test_a_long_file_is_named(tmp_path: Path) -> None:
    short, long = tmp_path / "short.py", tmp_path / "long.py"
    short.write_text("\n" * 3, "utf-8")
    long.write_text("\n" * 4, "utf-8")
    assert too_long([short, long], 3) == [f"{long}: 4 lines, at most 3 are allowed"]
