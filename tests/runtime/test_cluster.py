"""`cluster`, and `run` over folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from click.testing import CliRunner, Result

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.runtime import cluster

DIGITS = Path(__file__).parents[2] / "models" / "digits_q8.onnx"


def run(model: Path, *args: object) -> Result:
    return CliRunner().invoke(main, ["run", str(model), *map(str, args)])


def refused(model: Path, *args: object) -> str:
    outcome = run(model, *args)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    return outcome.stderr.removeprefix("error: ").rstrip("\n")


def parsed(text: str, path: Path) -> Path:
    header = '<ir_version: 10, opset_import: ["" : 21]> net '
    onnx.save(onnx.parser.parse_model(header + text), path)
    return path


def spikes(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.3).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Samples and stacks of them, of two lengths."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(6):
        shape = (1, 8, 8, 12 + i % 2) if i < 4 else (i, 1, 8, 8, 9)
        np.save(folder / f"{i}.npy", spikes(*shape, seed=i))
    (folder / "README.txt").write_text("left out")
    return folder


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR", object_store_memory=100 << 20,
    )  # fmt: skip
    yield ray
    ray.shutdown()


# -- folders -------------------------------------------------------------------------------------


def test_a_folder_is_its_files(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(DIGITS, "-i", folder, "-o", out)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == f"wrote  6 files to {out}\n"
    session = so.Session(DIGITS)
    assert sorted(path.name for path in out.iterdir()) == [f"{i}.npy" for i in range(6)]
    for i in range(6):
        x, y = np.load(folder / f"{i}.npy"), np.load(out / f"{i}.npy")
        expected = session.run(x) if i >= 4 else session.run(x[None])[0]
        assert expected.any()
        assert np.array_equal(y, expected)


def test_layout_decoding_and_several_ends(tmp_path: Path) -> None:
    text = (
        "(float[T, N, 2] a, float[T, N, 3] b) => (float[T, N, 2] c, float[T, N, 3] d)"
        "{ c = Neg(a) d = Abs(b) }"
    )
    path = parsed(text, tmp_path / "two.onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"synapse_onnx.layout": "TNC"})
    onnx.save(model, path)
    a, b = spikes(5, 4, 2), spikes(5, 4, 3)
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "stack.npz", b=b, a=a)
    np.savez(tmp_path / "in" / "one.npz", b=b[:, 0], a=a[:, 0])
    for more in ([], ["--batch", "3"], ["--decode", "rate"]):
        outcome = run(path, "-i", tmp_path / "in", "-o", tmp_path / "out", *more)
        assert outcome.exit_code == 0, outcome.output
        with (
            np.load(tmp_path / "out" / "stack.npz") as all,
            np.load(tmp_path / "out" / "one.npz") as one,
        ):
            expected = {"c": -a, "d": b}
            for name in "cd":
                whole = (
                    expected[name].mean(0, dtype=np.float32) if "rate" in more else expected[name]
                )
                assert np.array_equal(all[name], whole)
                assert np.array_equal(one[name], whole[0] if "rate" in more else whole[:, 0])


def test_events(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        columns = [rng.integers(0, size, 5000) for size in (8, 8, 1, 9_000 + 4_000 * i)]
        rows = "\n".join(",".join(map(str, row)) for row in zip(*columns, strict=True))
        (tmp_path / "in" / f"{i}.csv").write_text(f"x,y,p,t\n{rows}\n")
    args = ("--dt", 1000, "--count")
    assert run(DIGITS, "-i", tmp_path / "in", *args, "-o", tmp_path / "out").exit_code == 0
    for i in range(2):
        whole = tmp_path / "whole.npy"
        assert run(DIGITS, "-i", tmp_path / f"in/{i}.csv", *args, "-o", whole).exit_code == 0
        assert np.load(whole).any()
        assert np.array_equal(np.load(tmp_path / f"out/{i}.npy"), np.load(whole)[0])
    sentence = refused(DIGITS, "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert sentence == f"{tmp_path}/in/0.csv holds events; give --dt, the length of a time step"


def test_what_a_folder_cannot_be(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    sentence = refused(DIGITS, "-i", tmp_path / "empty", "-o", out)
    assert sentence == f"the folder {tmp_path}/empty is empty: it holds no .npy, .npz or .csv file"
    assert "is the folder of the inputs" in refused(DIGITS, "-i", folder, "-o", folder)
    assert "is the only --input" in refused(DIGITS, "-i", folder, "-i", DIGITS, "-o", out)
    for option in ("--restore", "--save"):
        assert "of one sequence" in refused(DIGITS, "-i", folder, "-o", out, option, "s.npz")
    sentence = refused(DIGITS, "-i", folder, "-o", tmp_path / "no" / "out")
    assert sentence.endswith(f"there is no folder {tmp_path}/no")
    np.save(folder / "5.npy", spikes(2, 1, 8, 7, 9))
    sentence = refused(DIGITS, "-i", folder, "-o", out)
    assert sentence.startswith(f"{folder}/5.npy holds an array of shape (2, 1, 8, 7, 9); the mod")
    assert not out.exists(), "refused before anything is run"
    (folder / "5.npz").touch()
    assert "5.npy and 5.npz of" in refused(DIGITS, "-i", folder, "-o", out)


# -- batches and their size ----------------------------------------------------------------------


def test_batches_by_memory(tmp_path: Path) -> None:
    text = (
        "(float[N, 3, T] x) => (uint8[N, 2, T] z) <float[N, 5, T] y, int64[N, 1] s, float[9000] w>"
        "{ y = Neg(x) z = Neg(y) }"
    )
    path = parsed(text, tmp_path / "m.onnx")
    sample = 2 * (3 * 4 + 2 + 5 * 4) * 1000  # input, output, largest between; 7 steps: s is less
    model = onnx.load(path)
    del model.graph.value_info[2]
    onnx.save(model, path)
    for memory, expected in ((1, 1), (sample, 1), (10 * sample, 10), (10 * sample - 1, 9)):
        assert cluster.batch_size(path, steps=1000, memory=memory) == expected
    assert cluster.batch_size(path.read_bytes(), steps=1000) == cluster.MEMORY // sample
    with pytest.raises(so.InputError, match="axis 2 of x open; give steps"):
        cluster.batch_size(path)
    with pytest.raises(so.InputError, match="at least 1, got 0 and 1"):
        cluster.batch_size(path, steps=1, memory=0)
    fixed = parsed("(float[4, 3, T] x) => (float[4, 3, T] y) { y = Neg(x) }", tmp_path / "f.onnx")
    assert cluster.batch_size(fixed) == 4
    # shapes that another tool has not written down
    bare = "(float[N, 3] x) => (float[N, 1] z) { y = Concat<axis = 1>(x, x) z = ReduceSum(y) }"
    path = parsed(bare, tmp_path / "bare.onnx")
    assert cluster.batch_size(path, memory=800) == 800 // (2 * (3 * 4 + 4 + 6 * 4))


@pytest.mark.parametrize("layout", ["NCT", "TNC"])
def test_a_predictor_adds_outputs_to_a_batch(tmp_path: Path, layout: str) -> None:
    shape = {"NCT": "N, 3, T", "TNC": "T, N, 3"}[layout]
    path = parsed(f"(float[{shape}] x) => (float[{shape}] y) {{ y = Neg(x) }}", tmp_path / "m.onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"synapse_onnx.layout": layout})
    x = spikes(4, 3, 5) if layout == "NCT" else spikes(4, 5, 3)
    batch = {"x": x, "label": np.array(["a", "b", "c", "d"])}
    found = cluster.Predictor(model.SerializeToString())(batch)
    assert list(found) == ["label", "y"]
    assert np.array_equal(found["y"], -x)
    assert list(cluster.Predictor(model.SerializeToString(), keep_inputs=True)(batch)) == [
        "x", "label", "y",
    ]  # fmt: skip
    rows = np.empty(2, object)
    rows[:] = [x[0], x[1]]
    predictor = cluster.Predictor(model.SerializeToString())
    assert np.array_equal(predictor({"x": rows})["y"], -x[:2])
    rows[1] = x[1][..., 1:]
    with pytest.raises(so.InputError, match=r"column x holds arrays of different shapes: row 0 of"):
        predictor({"x": rows})
    with pytest.raises(so.InputError, match="no column x, an input of the model; its columns are"):
        predictor({"label": batch["label"]})
    with pytest.raises(so.InputError, match="an output of that name; rename the column"):
        predictor({"x": x, "y": x})
    with pytest.raises(so.ModelError, match="the model is no ONNX model"):
        cluster.Predictor(b"none")


@pytest.mark.parametrize(
    ("end", "node", "shape"),
    [("float", "ReduceSum<keepdims = 0>(x)", r"\(\)"), ("float[1, 3, T]", "Slice(x, i, j)", ".*")],
    ids=["a number", "one row"],
)
def test_an_output_without_a_row_a_sample_is_refused(
    end: str, node: str, shape: str, tmp_path: Path
) -> None:
    ends = "i = Constant<value_ints = [0]>()  j = Constant<value_ints = [1]>()"
    text = f"(float[N, 3, T] x) => ({end} y) {{ {ends}  y = {node} }}"
    predictor = cluster.Predictor(parsed(text, tmp_path / "m.onnx"))
    with pytest.raises(so.ShapeError, match=rf"output y of shape {shape} does not hold 4 rows"):
        predictor({"x": spikes(4, 3, 5)})


# -- on Ray --------------------------------------------------------------------------------------


# Ray warns of settings that it copies itself
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_data(ray: Any) -> None:
    pytest.importorskip("pyarrow", reason="Ray Data is not installed: the extra ray")
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    x = spikes(10, 1, 8, 8, 12)
    rows = ray.data.from_items([{"spikes": x[i], "label": i} for i in range(10)])
    found = rows.map_batches(
        cluster.Predictor, fn_constructor_args=(DIGITS.read_bytes(),), batch_size=4,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).take_all()  # fmt: skip
    assert [row["label"] for row in found] == list(range(10))
    assert np.array_equal([row["output"] for row in found], so.Session(DIGITS).run(x))
