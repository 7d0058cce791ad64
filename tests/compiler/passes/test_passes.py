"""Which passes there are, and in which order they run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse_onnx.compiler import passes
from synapse_onnx.compiler.passes import (
    all_passes,
    cancel_reshapes,
    cancel_transposes,
    clean_up,
    give_shapes,
    mark_spikes,
    move_transposes,
    name_after_modules,
    order_initializers,
    part_scales,
    read_first_input,
    store_int4,
    store_integers,
)
from synapse_onnx.errors import RegistryError


def test_every_pass_is_tested_here_and_runs_in_this_order() -> None:
    folder = Path(__file__).parent
    assert all((folder / f"test_{name}.py").exists() for name in all_passes())
    assert list(all_passes().items()) == [
        ("give_shapes", give_shapes.run),
        ("move_transposes", move_transposes.run),
        ("cancel_transposes", cancel_transposes.run),
        ("cancel_reshapes", cancel_reshapes.run),
        ("read_first_input", read_first_input.run),
        ("clean_up", clean_up.run),
        ("mark_spikes", mark_spikes.run),
        ("store_integers", store_integers.run),
        ("part_scales", part_scales.run),
        ("order_initializers", order_initializers.run),
        ("store_int4", store_int4.run),
        ("name_after_modules", name_after_modules.run),
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files count as passes, as if they lay beside the others."""
    monkeypatch.setattr(passes, "__path__", [*passes.__path__, str(tmp_path)])
    all_passes.cache_clear()
    yield tmp_path
    all_passes.cache_clear()
    for path in tmp_path.glob("*.py"):
        if sys.modules.pop(f"{passes.__name__}.{path.stem}", None):
            delattr(passes, path.stem)


_NO_CHANGES = "def run(model):\n    return 0\n"


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("", "cancel_reshapes"),  # names no other pass: c comes before n, and n before r
        ('AFTER = ("store_int4",)\n', "store_int4"),
        ('BEFORE = ("cancel_transposes",)\n', "move_transposes"),
        ('AFTER = ("clean_up",)\nBEFORE = ("store_int4",)\n', "mark_spikes"),
    ],
)
def test_a_new_pass_is_found_and_runs_where_it_says(folder: Path, text: str, follows: str) -> None:
    (folder / "new_pass.py").write_text(text + _NO_CHANGES)
    order = list(all_passes())
    files = {path.stem for path in Path(passes.__file__).parent.glob("[!_]*.py")}
    assert sorted(order) == sorted({"new_pass", *files})
    assert order[order.index("new_pass") - 1] == follows


def test_a_pass_that_names_no_pass_is_refused(folder: Path) -> None:
    (folder / "new_pass.py").write_text('AFTER = ("tidy",)\n' + _NO_CHANGES)
    with pytest.raises(RegistryError, match="pass new_pass names 'tidy', which is no pass"):
        all_passes()


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        ('AFTER = ("clean_up",)\nBEFORE = ("give_shapes",)\n', "new_pass before give_shapes"),
        # nothing runs after the last one
        ('AFTER = ("name_after_modules",)\n', "new_pass before name_after_modules"),
    ],
)
def test_passes_without_an_order_are_refused(folder: Path, text: str, circle: str) -> None:
    (folder / "new_pass.py").write_text(text + _NO_CHANGES)
    with pytest.raises(RegistryError, match="the passes have no order: ") as raised:
        all_passes()
    assert circle in str(raised.value)
