"""Files that mean harm: refused with one sentence, before memory or time is taken."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.model import limits
from synapse_onnx.model.file import load_model
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.readers import _hdf5, _hdf5_copy

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits_q8.onnx"
NET = ROOT / "tests" / "reference" / "net_cuba_mlp.net"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def sentence(result: Result) -> str:
    """The one sentence of a call that was refused."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")


def model(
    nodes: list[onnx.NodeProto],
    tensors: list[TensorProto] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    """A model from x (N, 4) to y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors or [],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


def identity() -> onnx.NodeProto:
    return helper.make_node("Identity", ["x"], ["y"])


def refusal(made: onnx.ModelProto, folder: Path) -> str:
    """Why a model is refused: by Session, as a file and in memory, and by load_model."""
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    said = []
    for load in (lambda: so.Session(path), lambda: so.Session(made), lambda: load_model(path)):
        with pytest.raises(so.ModelError) as error:
            load()
        said.append(str(error.value).replace(str(path), "the model"))
    assert len(set(said)) == 1
    return said[0].removeprefix("the model: ")


# -- values in other files ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with values in it and beside it, and links to those beside it."""
    inside = tmp_path / "model"
    inside.mkdir()
    for path in (tmp_path / "secret.bin", inside / "inside.bin"):
        np.arange(4, dtype=np.float32).tofile(path)
    (inside / "symbolic.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "up").symlink_to(tmp_path)
    os.link(tmp_path / "secret.bin", inside / "hard.bin")
    return inside


PLACES = (
    "inside.bin", "../secret.bin", "{absolute}", "symbolic.bin", "hard.bin", "up/secret.bin",
    "/dev/zero", "*/_ORT_MEM_ADDR_/*",
)  # fmt: skip


def elsewhere(place: str) -> TensorProto:
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=place)
    return tensor


@pytest.mark.parametrize("place", PLACES)
def test_values_in_another_file(folder: Path, place: str) -> None:
    place = place.format(absolute=folder.parent / "secret.bin")
    adds = helper.make_node("Add", ["x", "w"], ["y"])
    assert refusal(model([adds], [elsewhere(place)]), folder) == (
        "the values of w are in another file, which is refused; where you trust it, onnx.load and "
        "onnx.save write it as one file"
    )


def test_a_segment_of_a_tensor(folder: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.segment.begin, tensor.segment.end = 0, 1
    adds = helper.make_node("Add", ["x", "w"], ["y"])
    assert refusal(model([adds], [tensor]), folder) == (
        "w is a segment of a tensor and not a whole one, which is refused"
    )


def test_values_in_another_file_wherever_a_tensor_can_stand(folder: Path) -> None:
    tensor = elsewhere("inside.bin")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    adds = helper.make_node("Add", ["x", "w"], ["y"])
    inner = helper.make_graph(
        [constant, helper.make_node("Identity", ["w"], ["b"])], "inner", [], []
    )
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    opsets = [helper.make_opsetid("", 21)]
    function = helper.make_function("f", "F", ["x"], ["y"], [constant, adds], opsets)
    default = helper.make_function("f", "F", ["x"], ["y"], [identity()], opsets)
    default.attribute_proto.append(helper.make_attribute("value", tensor))
    plain = helper.make_function("f", "F", ["x"], ["y"], [identity()], opsets)
    sparse = model([identity()])
    sparse.graph.sparse_initializer.add().values.CopyFrom(tensor)
    calls = helper.make_node("F", ["x"], ["y"], domain="f")
    for made in (
        model([constant, adds]),
        model([branch]),
        model([calls], functions=[function]),
        model([calls], functions=[default]),
        model([calls], functions=[function, plain]),
        model([calls], functions=[plain, function]),
        sparse,
    ):
        assert "the values of w are in another file" in refusal(made, folder)


# -- bombs ----------------------------------------------------------------------------------------


def doubling(depth: int, name: str = "F{}") -> list[onnx.FunctionProto]:
    """Functions of which each calls the one before it twice."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    functions = []
    for i in range(depth):
        before = name.format(i - 1) if i else "Identity"
        domain = "f" if i else ""
        nodes = [
            helper.make_node(before, ["x"], ["h"], domain=domain),
            helper.make_node(before, ["h"], ["y"], domain=domain),
        ]
        functions.append(helper.make_function("f", name.format(i), ["x"], ["y"], nodes, opsets))
    return functions


def test_functions_that_expand_without_end(tmp_path: Path) -> None:
    begin = time.process_time()  # not of the clock: others may use the machine
    several = [helper.make_node("F15", ["x"], [name], domain="f") for name in "abcdy"]
    wide = model(several, functions=doubling(16))
    assert refusal(wide, tmp_path) == (
        "it has more than 65,536 nodes when its functions are expanded (SYNAPSE_ONNX_MAX_BYTES "
        "allows more), which is refused"
    )
    so.Session(model([helper.make_node("F6", ["x"], ["y"], domain="f")], functions=doubling(7)))
    chain = doubling(2000)
    for function in chain:
        function.node[0].op_type, function.node[0].domain = "Identity", ""
    top = helper.make_node("F1999", ["x"], ["y"], domain="f")
    for functions in (chain, chain[::-1]):
        said = refusal(model([top], functions=functions), tmp_path)
        assert said == "functions call each other more than 16 deep, which is refused"
    circle = doubling(3)
    circle[0].node[0].op_type, circle[0].node[0].domain = "F2", "f"
    top = helper.make_node("F2", ["x"], ["y"], domain="f")
    assert "calls itself" in refusal(model([top], functions=circle), tmp_path)
    assert time.process_time() - begin < 30


def test_graphs_within_graphs(tmp_path: Path) -> None:
    inner = helper.make_graph([identity()], "inner", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "inner", [], [])
        if len(inner.SerializeToString()) > 1 << 20:
            break
    else:
        pytest.fail("it doubles twenty times")
    assert len(inner.SerializeToString()) > 1 << 20
    inner = helper.make_graph([identity()], "inner", [], [])
    for _ in range(17):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
        inner = helper.make_graph([node], "inner", [], [])
    said = refusal(model([node]), tmp_path)
    assert said == "graphs within graphs, more than 16 deep, which is refused"


def shape_of(*sizes: int) -> TensorProto:
    return helper.make_tensor("shape", TensorProto.INT64, [len(sizes)], sizes)


HUGE = "1,000,000,000,000 values, more than the 2,147,483,648 bytes"


@pytest.mark.parametrize("raw", [False, True])
def test_shapes_that_no_memory_holds(tmp_path: Path, raw: bool) -> None:
    shape = (
        onnx.numpy_helper.from_array(np.array([10**6, 10**6]), "shape")
        if raw
        else shape_of(10**6, 10**6)
    )
    fill = helper.make_node("ConstantOfShape", ["shape"], ["y"], name="fill")
    assert HUGE in refusal(model([fill], [shape]), tmp_path)
    constant = helper.make_node("Constant", [], ["shape"], value=shape)
    assert HUGE in refusal(model([constant, fill]), tmp_path)
    for op in ("Expand", "Tile"):
        node = helper.make_node(op, ["x", "shape"], ["y"], name="fill")
        assert HUGE in refusal(model([node], [shape]), tmp_path)
    ints = helper.make_node("Constant", [], ["shape"], value_ints=[10**6, 10**6])
    assert HUGE in refusal(model([ints, fill]), tmp_path)
    draws = helper.make_node("RandomNormal", [], ["y"], shape=[10**6, 10**6])
    assert HUGE in refusal(model([draws]), tmp_path)


def test_tensors_that_are_larger_than_what_the_file_holds(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10**12], raw_data=b"1234")
    assert refusal(model([identity()], [tensor]), tmp_path) == (
        "w is said to have 1,000,000,000,000 values, and the file holds 4 bytes or values of it, "
        "which is refused"
    )
    sparse = model([identity()])
    entry = sparse.graph.sparse_initializer.add(dims=[10**6, 10**6])
    entry.values.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
    assert HUGE in refusal(sparse, tmp_path)


def test_a_bound_that_the_user_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = DIGITS.stat().st_size
    monkeypatch.setenv(limits.VARIABLE, str(size - 1))
    said = sentence(call("inspect", str(DIGITS)))
    assert said == (
        f"{DIGITS} has {size:,} bytes, and more than {size - 1:,} are refused; set "
        f"SYNAPSE_ONNX_MAX_BYTES to allow more"
    )
    with pytest.raises(so.InputError, match="to allow more"):
        so.Session(DIGITS)
    monkeypatch.setenv(limits.VARIABLE, "100000000")
    assert call("inspect", str(DIGITS)).exit_code == 0
    for wrong in ("0", "-1", "2GiB", "9" * 30):
        monkeypatch.setenv(limits.VARIABLE, wrong)
        assert "must be a whole number of bytes above 0" in sentence(call("inspect", str(DIGITS)))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    for name in (b"spikes", b"synapse_onnx.regime", b"conv1_neuron"):
        damaged = DIGITS.read_bytes().replace(name, b"\xff" * len(name))
        (tmp_path / "m.onnx").write_bytes(damaged)
        said = sentence(call("inspect", str(tmp_path / "m.onnx")))
        assert said == f"{tmp_path / 'm.onnx'} is no ONNX model: a name in it is no text"


def test_metadata_that_are_none(tmp_path: Path) -> None:
    """Whatever they hold: the model counts as somebody else's, and is not streamed."""
    good = onnx.load(ROOT / "models" / "tones_stream.onnx")
    state = '{"input": "ear.neuron.real", "output": "b", "dtype": "int64", "start": 0, "shape": %s}'
    odd = ["[" * 100_000, "[1]", "{}", "3", '[{"path": 1}]', "null",
           '[{"path": "a", "scales": [1]}]', '[{"path": "a", "threshold": "x"}]',
           '[{"path": "a", "delays": [[1]]}]', '[{"path": "a", "scales": [[NaN]]}]',
           '[{"path": "a", "weight_shape": 3}]',
           # the name of scales in earlier files
           '[{"path": "a", "steps": [1]}]', '[{"path": "a", "steps": [[NaN]]}]']  # fmt: skip
    states = ['[{"input": "ear.neuron.real"}]', f"[{state % '[null, 1e3]'}]",
              f"[{state % '[null, 1000000000000]'}]", f"[{state % '[null, -1]'}]",
              f"[{state % '3'}]"]  # fmt: skip
    for key, values in (("layers", odd), ("states", [*odd[:4], *states])):
        for value in values:
            made = onnx.ModelProto()
            made.CopyFrom(good)
            entry = next(p for p in made.metadata_props if p.key == f"synapse_onnx.{key}")
            entry.value = value
            with pytest.raises(so.ModelError):
                Metadata.read(made)
            (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
            shown = call("inspect", str(tmp_path / "m.onnx"))
            assert shown.exit_code == 0, value
            assert "not written by synapse-onnx" in " ".join(shown.output.split())
            if key == "states":
                with pytest.raises(so.ModelError, match="its metadata on states"):
                    so.Session(made)


# -- arrays ---------------------------------------------------------------------------------------


def header(shape: object, data: bytes = b"") -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_arrays_that_are_larger_than_their_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    for shape in ((10**12,), (2**40, 2**40), (-1,), (True,), (3,)):
        Path(path).write_bytes(header(shape, bytes(8)))
        with pytest.raises(ValueError, match="array"):
            limits.load_arrays(path)
        assert "is no .npy or .npz file, or a damaged one" in sentence(
            call("run", str(DIGITS), "-i", path, "-o", str(tmp_path / "o.npz"))
        )
    Path(path).write_bytes(header((2,), bytes(8)))
    np.testing.assert_array_equal(limits.load_arrays(path)[""], [0, 0])


def test_an_archive_that_unpacks_to_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    zeros = header((1 << 22,), bytes(1 << 24))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(3):
            file.writestr(f"{i}.npy", zeros)
    assert path.stat().st_size < 100_000
    assert len(limits.load_arrays(path)) == 3
    monkeypatch.setenv(limits.VARIABLE, str(40 << 20))
    said = sentence(call("run", str(DIGITS), "-i", str(path), "-o", str(tmp_path / "o.npz")))
    assert said.startswith(f"{path} unpacks to 50,33")
    stream = so.Session(ROOT / "models" / "tones_stream.onnx").stream()
    with pytest.raises(so.InputError, match="unpacks to"):
        stream.restore(path)


def test_what_never_ends_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    target = str(tmp_path / "o.npz")
    assert sentence(call("run", str(DIGITS), "-i", str(pipe), "-o", target)) == (
        f"{pipe} cannot be read: it is no file"
    )
    assert sentence(call("inspect", "/dev/zero")) == "/dev/zero cannot be read: it is no file"


def test_checkpoints_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("import torch\nNet = torch.nn.Linear(4, 4)\n")
    saved = io.BytesIO()
    torch.save({"weight": torch.zeros(1 << 20)}, saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile("w.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    monkeypatch.setenv(limits.VARIABLE, str(1 << 20))
    said = sentence(
        call("export", "net.py:Net", "--shape", "4", "--weights", "w.pt", "-o", "o.onnx")
    )
    assert said.startswith("w.pt unpacks to 4,19")


# -- HDF5 -----------------------------------------------------------------------------------------


def test_hdf5_is_read_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself is never opened here."""
    opened = []
    real = h5py.File

    def file(name: str, *arguments: str) -> h5py.File:
        opened.append(name)
        return real(name, *arguments)

    monkeypatch.setattr(h5py, "File", file)
    assert so.load_net(NET) is not None
    assert opened
    assert str(NET) not in opened


@pytest.mark.parametrize("what", ["hang", "crash", "memory"])
def test_a_reader_that_hangs_or_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    line = {
        "hang": "import time; time.sleep(3600)",
        "crash": "import os; os.abort()",
        "memory": "x = bytearray(1 << 40)",
    }[what]
    script = tmp_path / "copy.py"
    script.write_text(
        Path(_hdf5._hdf5_copy.__file__)
        .read_text()
        .replace("    import h5py\n\n    with", f"    {line}\n    import h5py\n\n    with")
    )
    monkeypatch.setattr(_hdf5._hdf5_copy, "__file__", str(script))
    if what == "hang":  # the others end by themselves, late on a busy machine
        monkeypatch.setattr(_hdf5, "_SECONDS", 2)
    with pytest.raises(so.InputError) as error:
        so.load_net(NET)
    damaged = f"{NET} is no HDF5 file, or a damaged one"
    slow = f"{NET}: HDF5 has not read it within 2 s; the file is damaged"
    assert str(error.value) == (slow if what == "hang" else damaged)


def test_hdf5_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        file.create_dataset("layer/0/weight", (1 << 20,), "f4", chunks=(1 << 16,))
    monkeypatch.setenv(limits.VARIABLE, str(1 << 20))
    with pytest.raises(
        so.InputError, match="layer/0/weight brings the arrays of this file to more"
    ):
        so.load_net(path)


def test_a_transposed_convolution_without_a_neuron(tmp_path: Path) -> None:
    """Found by the fuzzer: the last layer of a network may have no neuron."""
    with h5py.File(ROOT / "tests/reference/net_cuba_autoencoder.net") as file:
        types = [file[f"layer/{i}/type"][()] for i in range(len(file["layer"]))]
    last = max(i for i, kind in enumerate(types) if b"convT" in np.asarray(kind).tobytes())
    path = tmp_path / "a.net"
    path.write_bytes((ROOT / "tests/reference/net_cuba_autoencoder.net").read_bytes())
    with h5py.File(path, "r+") as file:
        del file[f"layer/{last}/neuron"]
    assert "ConvTranspose" in repr(so.load_net(path))


# -- the memory that a refusal takes ---------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory was taken")
def test_a_refusal_takes_no_memory(tmp_path: Path) -> None:
    """A process of its own, so that its peak is that of the call alone."""
    fill = helper.make_node("ConstantOfShape", ["shape"], ["y"])
    made = model([fill], [shape_of(10**6, 10**6)])
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    # the peak of this process's own memory: getrusage counts that of the one it was forked from
    code = (
        "import re, sys\n"
        "from synapse_onnx.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    call = [sys.executable, "-c", code, "bench", str(tmp_path / "m.onnx")]
    ended = subprocess.run(call, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 2, ended.stderr
    assert HUGE in ended.stderr
    assert int(ended.stdout) < 500_000, "KiB"


def test_bounds_that_the_system_refuses_leave_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS refuses to bound memory, a container may have lower bounds, Windows has none."""
    made: dict[str, tuple[int, int]] = {}

    def setrlimit(kind: str, bounds: tuple[int, int]) -> None:
        if kind == "memory":
            raise ValueError("current limit exceeds maximum limit")
        made[kind] = bounds

    limits_of_the_system = {"memory": (-1, -1), "time": (-1, 5), "core": (-1, -1)}
    system = types.SimpleNamespace(
        RLIMIT_AS="memory",
        RLIMIT_CPU="time",
        RLIMIT_CORE="core",
        RLIM_INFINITY=-1,
        getrlimit=limits_of_the_system.__getitem__,
        setrlimit=setrlimit,
    )
    monkeypatch.setitem(sys.modules, "resource", system)
    _hdf5_copy._limit(1 << 20, 9)
    assert made == {"time": (5, 5), "core": (0, 0)}
    monkeypatch.setitem(sys.modules, "resource", None)
    _hdf5_copy._limit(1 << 20, 9)
