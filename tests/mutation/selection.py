"""Which tests a file of the package has: by its place, its names and what imports it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "synapse_onnx"
TESTS = ROOT / "tests"

#: rooms whose code is tested in other rooms too: the equation of a neuron in tests of its ops
ALSO = {"neuron": ("ops",), "ops/equation": ("ops",), "ops/arithmetic": ("ops",)}


def sources(given: Sequence[str]) -> list[str]:
    """The files of the package that have tests, of those given or of all."""
    places = [ROOT / each for each in given] or [PACKAGE]
    files: set[Path] = set()
    for place in places:
        files |= {place} if place.is_file() else set(place.rglob("*.py"))
    return sorted(str(path.resolve().relative_to(ROOT)) for path in files if tests_of(path))


def tests_of(path: Path) -> tuple[str, ...]:
    """The files of tests of a file of the package, relative to the checkout; there may be none.

    They are all in the folder that mirrors its own, or else its room, those elsewhere that bear its
    name, and those that import it or name it with its package, as in ``so.neuron.cuba``.
    """
    parts = path.resolve().relative_to(PACKAGE).with_suffix("").parts
    stem = parts[-1]
    rooms = ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)] or [stem]
    room = next((room for room in rooms if _tests(TESTS / room)), rooms[-1])
    files = {file for name in (room, *ALSO.get(room, ())) for file in _tests(TESTS / name)}
    for file in _tests(TESTS):
        if file.stem == f"test_{stem}" or _names(_text(file), parts):
            files.add(file)
    return tuple(sorted(str(file.relative_to(ROOT)) for file in files))


def _tests(folder: Path) -> list[Path]:
    return sorted(folder.rglob("test_*.py"))


@cache
def _text(file: Path) -> str:
    """What a file of tests says; it is asked for every file of the package."""
    return file.read_text()


def _names(text: str, parts: Sequence[str]) -> bool:
    """Whether a text imports a module or names it with its package."""
    package, stem = ".".join(parts[:-1]), parts[-1]
    if stem == "__init__":
        return False
    if not package:
        return re.search(rf"{PACKAGE.name}(\.| import [^\n]*\b){stem}\b", text) is not None
    return re.search(rf"\b{re.escape(package)}(\.| import [^\n]*\b){stem}\b", text) is not None


def names_of(path: Path) -> set[str]:
    """The name of a file and of what it declares: ``name="Delta"``, ``name = "Cuba"``."""
    stem = path.stem.strip("_")
    return {stem, stem.title().replace("_", "")} | set(
        re.findall(r"\bname\s*=\s*\"(\w+)\"", path.read_text())
    )


def names_beside(path: Path) -> set[str]:
    """The names of the other files of its folder, but for those that it bears too."""
    others = (other for other in path.parent.glob("*.py") if other != path)
    return set[str]().union(*map(names_of, others)) - names_of(path)


def select(items: Sequence[Any], names: set[str], spread: int, others: set[str]) -> list[Any]:
    """A few tests of each function: of those whose parameters bear a name, or else of all.

    If some test bears a name, functions whose parameters bear the names of other files alone are
    left out: of ``Delta`` the sums and products of each neuron say nothing.

    Args:
        items: collected tests, with a ``nodeid``.
        names: see :func:`names_of`; a test of ``CubaFloat`` bears the name ``Cuba``.
        spread: most tests of a function, from all over its parameters.
        others: names of other files.
    """
    by_function: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        by_function[item.nodeid.partition("[")[0]].append(item)

    def bear(group: Sequence[Any], words: set[str]) -> list[Any]:
        pattern = re.compile("|".join(map(re.escape, sorted(words))) or r"\Z.")
        return [item for item in group if pattern.search(item.nodeid.partition("[")[2])]

    known = bool(bear(items, names))
    chosen = []
    for group in by_function.values():
        mine = bear(group, names)
        if not mine and known and bear(group, others):
            continue
        mine = mine or group
        count = min(spread, len(mine))
        chosen += [mine[i * len(mine) // count] for i in range(count)]
    return chosen
