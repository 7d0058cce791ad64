"""A share of the faults of ``tests/mutation``, what it plants, and that it tells what is caught."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if sys.platform != "linux":
    pytest.skip("faults are tried in forked processes: Linux alone", allow_module_level=True)

from mutation import faults, search, selection

ROOT = Path(__file__).parents[2]


def planted(text: str) -> set[str]:
    return {mutant.apply(text) for mutant in faults.plant("some.py", text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = a + b", {"y = a - b"}),
        ("y = a // b", {"y = a / b"}),
        ("y = a @ b", {"y = a * b"}),
        ("y = a >= b", {"y = a > b"}),
        ("y = a < b <= c", {"y = a <= b <= c", "y = a < b < c"}),
        ("y = a is not b", {"y = a is b"}),
        ("y = a and b", {"y = a or b"}),
        ("y = not a", {"y = a"}),
        ("y = -a", {"y = a"}),
        ("y = a[1]", {"y = a[2]"}),
        ("y = 0.5", {"y = 1.0"}),
        ("y = True", {"y = False"}),
        ("y = x.floor()", {"y = x.ceil()"}),
        ("y = torch.where(c, a, b)", {"y = torch.where(c, b, a)"}),
        ("y = {'a', 'b'}", {"y = {'b'}"}),
        ("y = a if b else c", {"y = a if (not (b)) else c"}),
        ("for a in b:\n    continue", {"for a in b:\n    pass"}),
        ("write(a)", {"pass"}),
        ("y += a", {"pass"}),
        ("y = f'{a - b}'", {"y = f'{a + b}'"}),
        ("if a > b:\n    raise E(f'{1 + 2}')", {
            "if a >= b:\n    raise E(f'{1 + 2}')", "if a > b:\n    pass",
        }),
    ],
)  # fmt: skip
def test_faults_in_python(text: str, expected: set[str]) -> None:
    assert planted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = Add(a, b)", {"y = Sub(a, b)"}),
        ("y = Sub(a, b)", {"y = Add(a, b)", "y = Sub(b, a)"}),
        ("y = Less(a, b)", {"y = LessOrEqual(a, b)", "y = Less(b, a)"}),
        ("y = Where(c, a, b)", {"y = Where(c, b, a)"}),
        ("y = Cast<to = 6>(a)", {"y = Cast<to = 7>(a)"}),
        ("y = Constant<value = float {1}>()", {"y = Constant<value = float {2}>()"}),
        ("y = Constant<value_ints = [-1]>()", {"y = Constant<value_ints = [0]>()"}),
        ("y = Constant<value_float = 0.5>()", {"y = Constant<value_float = 1.0>()"}),
        ("y = Transpose<perm = [1, 0]>(a)", {"y = Transpose<perm = [0, 1]>(a)"}),
        ("a, b = Split<num_outputs = 2>(c)", set()),
        ("y = Constant<value = int64 {9223372036854775807}>()", set()),
        ("v = Scan<num_scan_inputs = 1, body = f (a, b) => (c, d) {}>(u, v)", {
            "v = Scan<num_scan_inputs = 1, body = f (a, b) => (c, d) {}>(v, u)",
        }),
        ("of a layer (N, C, T), Add it", set()),
    ],
)  # fmt: skip
def test_faults_in_onnx_text(text: str, expected: set[str]) -> None:
    assert planted(f'y = """\n{text}\n"""') == {f'y = """\n{each}\n"""' for each in expected}


@pytest.mark.parametrize(
    "text",
    [
        '"""Add(a, b) - of 1."""',
        "from a import b",
        "def f(a: int = b, *, c: tuple[int, 1]) -> x[2]:\n    return a",
        "def samples():\n    return 1 + 1",
        "y = zip(a, b, strict=True)",
        "x: Literal[1] = y",
        "__all__ = [1]",
        "def f(a):\n    del a",
        "def f(a):\n    raise NotImplementedError",
    ],
)
def test_what_computes_nothing_has_no_faults(text: str) -> None:
    assert planted(text) == set()


def test_every_excuse_has_its_mutant_and_its_reason() -> None:
    known = search.excuses()
    found = []
    for path in {entry["file"] for entry in known}:
        text = (ROOT / path).read_text()
        found += [search.excused(each, text, known) for each in faults.plant(path, text)]
    assert [entry for entry in known if entry not in found or not entry["reason"]] == []


@pytest.mark.slow
def test_every_file_of_ops_passes_neurons_and_export_takes_part() -> None:
    paths = {ROOT / path for path in selection.sources(())}
    package = selection.PACKAGE
    for folder in ("ops", "compiler", "neuron", "readers"):
        assert set((package / folder).rglob("*.py")) <= paths


def test_a_file_has_the_tests_of_its_room_and_those_that_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ops/test_delta.py", "neuron/deep/test_lif.py", "test_quantize.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text("")
    (tmp_path / "tests" / "test_all.py").write_text("so.ops.delta\n")
    (tmp_path / "tests" / "test_some.py").write_text("from synapse_onnx.neuron import base, lif\n")
    (tmp_path / "tests" / "test_top.py").write_text("from synapse_onnx import quantize\n")
    monkeypatch.setattr(selection, "ROOT", tmp_path)
    monkeypatch.setattr(selection, "TESTS", tmp_path / "tests")
    monkeypatch.setattr(selection, "PACKAGE", tmp_path / "synapse_onnx")

    def tests(path: str) -> set[str]:
        found = selection.tests_of(tmp_path / "synapse_onnx" / path)
        assert len(set(found)) == len(found)
        return {name.removeprefix("tests/") for name in found}

    assert tests("ops/delta.py") == {"ops/test_delta.py", "test_all.py"}
    assert tests("ops/delt.py") == {"ops/test_delta.py"}
    assert tests("neuron/lif.py") == {
        "neuron/deep/test_lif.py", "ops/test_delta.py", "test_some.py",
    }  # fmt: skip
    assert tests("quantize.py") == {"test_quantize.py", "test_top.py"}
    assert tests("dendrite.py") == set()


def test_a_file_bears_the_names_of_what_it_declares(tmp_path: Path) -> None:
    (tmp_path / "_leaky_if.py").write_text('OP = Op(name="Spike")\nclass A:\n    name = "Cuba"\n')
    expected = {"leaky_if", "LeakyIf", "Spike", "Cuba"}
    assert selection.names_of(tmp_path / "_leaky_if.py") == expected


def test_of_each_function_the_tests_that_bear_a_name_are_chosen() -> None:
    ids = [f"a.py::one[{name}-{i}]" for name in ("Cuba", "CubaFloat", "Rf") for i in range(4)]
    ids += [f"a.py::two[{i}]" for i in range(9)] + ["a.py::three", "a.py::Cuba"]
    items = [SimpleNamespace(nodeid=each) for each in ids]

    def chosen(names: set[str], spread: int, others: tuple[str, ...] = ()) -> list[str]:
        return [item.nodeid for item in selection.select(items, names, spread, set(others))]

    rest = [*(f"a.py::two[{i}]" for i in (0, 4)), "a.py::three", "a.py::Cuba"]
    assert chosen({"Rf"}, 2) == ["a.py::one[Rf-0]", "a.py::one[Rf-2]", *rest]
    assert chosen({"Cuba"}, 2) == ["a.py::one[Cuba-0]", "a.py::one[CubaFloat-0]", *rest]
    assert chosen({"Alif"}, 2) == ["a.py::one[Cuba-0]", "a.py::one[CubaFloat-2]", *rest]
    assert len(chosen({"Cuba"}, 100)) == 8 + 9 + 2
    items.append(SimpleNamespace(nodeid="a.py::four[Delta]"))
    assert chosen({"Delta"}, 2, ("Cuba", "Rf")) == [*rest, "a.py::four[Delta]"]
    # no test bears the name: a file that others share
    assert len(chosen({"Shared"}, 2, ("Cuba", "Rf"))) == 2 + 2 + 2 + 1


def test_other_files_of_a_folder_lend_their_names(tmp_path: Path) -> None:
    for name in ("delta", "sigma_delta", "delay"):
        (tmp_path / f"{name}.py").write_text(f'OP = Op(name="{name.title().replace("_", "")}")\n')
    others = {"SigmaDelta", "sigma_delta", "Delay", "delay"}
    assert selection.names_beside(tmp_path / "delta.py") == others


def test_the_score_counts_what_was_caught() -> None:
    one, *_ = faults.plant("a.py", "y = a + b")
    results = [search.Result(one, by) for by in ("test", "test", None, "test")]
    assert search.report(results) == 0.75
    excused = search.Result(one, None, "for a reason")
    assert search.report([*results, excused]) == 0.75


@pytest.mark.slow
def test_a_share_is_caught(tmp_path: Path) -> None:
    """Of an op and of some passes: code in place of code, and what runs at import."""
    passes = ("mark_spikes", "part_scales")
    files = ["synapse_onnx/ops/spike.py"]
    files += [f"synapse_onnx/compiler/passes/{name}.py" for name in passes]
    call = [sys.executable, str(ROOT / "tests/mutation"), *files, "--sample", "1", "--workers"]
    target = tmp_path / "found.json"
    ended = subprocess.run(
        [*call, "1", "--seed", "2", "--spread", "2", "--json", str(target)],
        capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(target.read_text())
    assert found["score"] >= 0.9
    assert {row["file"] for row in found["mutants"]} == set(files)
