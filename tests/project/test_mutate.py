"""A share of the faults of ``mutate.py``, what it plants, and that it tells what is caught."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if sys.platform != "linux":
    pytest.skip("faults are tried in forked processes: Linux alone", allow_module_level=True)

import mutants
import mutate

ROOT = Path(__file__).parents[2]


def planted(text: str) -> set[str]:
    return {mutant.apply(text) for mutant in mutants.plant("some.py", text)}


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
    known = mutate.excuses()
    found = []
    for path in {entry["file"] for entry in known}:
        text = (ROOT / path).read_text()
        found += [mutate.excused(each, text, known) for each in mutants.plant(path, text)]
    assert [entry for entry in known if entry not in found or not entry["reason"]] == []


def test_every_file_of_ops_passes_and_export_takes_part() -> None:
    paths = {Path(path) for path in mutate.sources(())}
    package = Path("synapse_onnx")
    for folder in ("ops", "passes", "neuron"):
        there = (ROOT / package / folder).glob("*.py")
        assert {path.relative_to(ROOT) for path in there} <= paths
    assert {package / f"{name}.py" for name in ("border", "exactness", "exporter")} <= paths


@pytest.mark.parametrize(
    ("path", "some", "none"),
    [
        ("loihi.py", {"test_loihi"}, {"test_neuron"}),  # of its name
        ("native.py", {"test_native", "test_native_build"}, {"test_gpu"}),  # which begins so
        ("fusion.py", {"test_native_fusion"}, {"test_native"}),  # which imports it
        ("module.py", {"test_streaming", "test_freeze"}, {"test_loihi"}),  # of those that import it
        ("runtime.py", {"test_streaming"}, {"test_hostile"}),  # as the table says
        ("neuron/lif.py", {"test_equations", "test_neuron", "test_lif"}, {"test_passes"}),
        ("neuron/norm.py", {"test_neuron_values", "test_training"}, {"test_lif"}),
        ("passes/clean_up.py", {"test_passes"}, {"test_ops"}),
        ("readers/nir.py", {"test_nir", "test_readers"}, {"test_net"}),
    ],
)
def test_the_tests_of_a_file_follow_from_names(path: str, some: set[str], none: set[str]) -> None:
    found = mutate.tests_of(mutate.PACKAGE / path)
    assert some <= set(found)
    assert not none & set(found)
    assert len(set(found)) == len(found)


def test_what_neurons_share_has_the_names_of_those_that_import_it() -> None:
    names = mutate.names()
    share = {path.partition("neuron/")[2][:-3]: said for path, said in names.items()}
    assert {"Alif", "Adrf", "AdrfIz"} <= share["_adaptive"]
    assert not {"Cuba", "Rf"} & share["_adaptive"]
    assert {"Rf", "RfIz", "Adrf", "AdrfIz"} <= share["_resonator"]
    assert "Cuba" not in share["_resonator"]
    assert {"Cuba", "Alif", "LifFloat", "Rf"} <= share["base"]
    assert "MeanOnlyBatchNorm" in share["norm"]
    assert "Cuba" not in share["norm"]
    shared = {name for name, said in share.items() if mutate.SHARED in said}
    assert shared >= {"_adaptive", "_resonator", "base"}
    assert not shared & {"cuba", "lif", "norm", "dropout"}
    assert "per_channel" in names["synapse_onnx/ops/_neuron.py"]
    assert "per_channel" not in names["synapse_onnx/ops/_synapse.py"]


def test_a_test_that_names_nothing_is_of_what_is_shared() -> None:
    def about(text: str, known: set[str]) -> bool:
        item = SimpleNamespace(function=None, callspec=None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mutate, "_said", lambda _: text)
            return mutate.concerns(item, known, {"Cuba", "Alif", "cuba", mutate.SHARED})

    assert about("neuron = made('Cuba')", {"Cuba"})
    assert not about("neuron = made('Cuba')", {"Alif"})
    assert not about("neuron = made('Cuba')", {"Alif", mutate.SHARED})
    assert about("neuron = made()", {"Alif", mutate.SHARED})
    assert not about("neuron = made()", {"Alif"})
    assert about("neuron = made('cuba')", {"Alif", mutate.SHARED}), "a common word is no name"


def test_the_score_counts_what_was_caught() -> None:
    one, *_ = mutants.plant("a.py", "y = a + b")
    results = [mutate.Result(one, by) for by in ("test", "test", None, "test")]
    assert mutate.report(results) == 0.75
    excused = mutate.Result(one, None, "for a reason")
    assert mutate.report([*results, excused]) == 0.75


@pytest.mark.slow
def test_a_share_is_caught(tmp_path: Path) -> None:
    """Of an op and of every pass: code in place of code, and what runs at import."""
    files = ["synapse_onnx/ops/spike.py", "synapse_onnx/compiler/passes"]
    call = [sys.executable, str(ROOT / "tests/mutate.py"), *files, "--sample", "2", "--workers"]
    target = tmp_path / "found.json"
    ended = subprocess.run(
        [*call, "1", "--seed", "2", "--json", str(target)],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(target.read_text())
    assert found["score"] >= 0.9
    paths = {row["file"] for row in found["mutants"]}
    assert len(paths) >= 8
