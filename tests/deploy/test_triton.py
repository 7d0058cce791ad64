"""Repositories for Triton: their configuration, and what a server that follows it computes.

No package registry has the server with ONNX Runtime in it. :class:`Server` does what the
configuration asks for, as Triton's sources have it: sequences' states are kept, paired by their
places in alphabetical order, and requests of several sequences go through the model in one call.
Where SYNAPSE_ONNX_TRITON is a command that starts the server, that one is asked as well.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from networks import NEURON, spikes
from numpy.typing import NDArray
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.deploy.triton import Batching, write_repository
from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.model.metadata import Metadata

MODELS = Path(__file__).parents[2] / "models"

Array = NDArray[Any]


@pytest.fixture(scope="module")
def definitions() -> Any:
    """Triton's own definitions of its messages, from its client."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient, which has Triton's definitions, is not installed (peers.txt)")
    # by its path, for the package around it wants gRPC
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf's, on definitions of an earlier release of it
        spec.loader.exec_module(module)
    return module


def read(definitions: Any, folder: Path) -> Any:
    """Read a configuration by Triton's definitions, which know every field and its type."""
    from google.protobuf import text_format

    text = (folder / "config.pbtxt").read_text()
    return text_format.Parse(text, definitions.ModelConfig())


class Server:
    """A model of a repository, as its configuration says."""

    def __init__(self, definitions: Any, folder: Path) -> None:
        self.config = read(definitions, folder)
        self.folder = folder
        self.session = ort.InferenceSession(
            folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        states = self.config.sequence_batching.state
        self.states = {state.input_name: state for state in states}
        # Triton pairs them so
        self.next = dict(
            zip(sorted(self.states), sorted(s.output_name for s in states), strict=True)
        )
        self.kept: dict[int, dict[str, Array]] = {}

    def infer(self, requests: Sequence[tuple[int, bool, Array]]) -> list[Array]:
        """Answer requests of (sequence, whether it begins, input without its batch)."""
        for sequence, start, _ in requests:
            if start:
                self.kept[sequence] = {n: self.start(s) for n, s in self.states.items()}
        if not self.config.max_batch_size:
            return [self.call([request])[0] for request in requests]
        assert len(requests) <= self.config.max_batch_size
        return self.call(requests)

    def start(self, state: Any) -> Array:
        """The values that a state begins with."""
        (initial,) = state.initial_state
        assert all(s in (-1, i) for s, i in zip(state.dims, initial.dims, strict=True))
        assert initial.data_type == state.data_type
        kind = KINDS[initial.data_type]
        if initial.WhichOneof("state_data") == "zero_data":
            return np.zeros(initial.dims, kind)
        data = (self.folder / "initial_state" / initial.data_file).read_bytes()
        return np.frombuffer(data, kind).reshape(initial.dims)

    def call(self, requests: Sequence[tuple[int, bool, Array]]) -> list[Array]:
        """Run the model once."""
        (given,) = self.config.input
        (out,) = self.config.output
        for _, _, array in requests:
            assert array.dtype == KINDS[given.data_type]
            assert len(array.shape) == len(given.dims)
            assert all(d in (-1, n) for d, n in zip(given.dims, array.shape, strict=True))
        batch = np.stack if self.config.max_batch_size else lambda arrays: arrays[0]
        feed = {given.name: batch([array for _, _, array in requests])}
        for name in self.states:
            feed[name] = batch([self.kept[sequence][name] for sequence, _, _ in requests])
        names = [out.name, *self.next.values()]
        result, *last = self.session.run(names, feed)
        assert result.dtype == KINDS[out.data_type]
        for name, values in zip(self.next, last, strict=True):
            for (sequence, _, _), value in zip(requests, self.cut(values), strict=True):
                dims = self.states[name].dims
                assert all(d in (-1, n) for d, n in zip(dims, value.shape, strict=True))
                self.kept[sequence][name] = value
        return self.cut(result)

    def cut(self, values: Array) -> list[Array]:
        """The parts of a result, one a request."""
        return list(values) if self.config.max_batch_size else [values]


#: Triton's numbers of types
KINDS = {2: np.uint8, 8: np.int32, 9: np.int64, 11: np.float32, 12: np.float64}


class Net(nn.Module):
    """States of several types and starts, delays, feedback, an image: (N, 2, 3, 4, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = so.block.cuba.Conv(NEURON, 2, 3, 3, weight_scale=3, delay_shift=True)
        self.flat = so.block.cuba.Flatten()
        self.last = so.block.alif.Recurrent(
            NEURON | {"threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.2},
            6, 5, weight_scale=20,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.flat(self.first(x)))
        return result


@functools.cache
def exported(**options: Any) -> tuple[onnx.ModelProto, Tensor]:
    torch.manual_seed(0)
    net, x = Net().eval(), spikes(2, 2, 3, 4, 12)
    return so.export(net, x, **options), x


@pytest.mark.parametrize("layout", ["NCT", "TNC"])
def test_two_interleaved_sequences(definitions: Any, tmp_path: Path, layout: str) -> None:
    model, x = exported(streaming=True, layout=layout)
    written = write_repository(model, tmp_path, "net")
    assert written.batched is (layout == "NCT")
    assert written.states == len(Metadata.read(model).states)
    server = Server(definitions, written.path)
    assert any(state["start"] for state in Metadata.read(model).states)
    assert server.config.sequence_batching.WhichOneof("strategy_choice") == "oldest"
    whole = so.Session(model, native=False).run(time_first(x.numpy(), layout))
    found: list[list[Array]] = [[], []]
    # the second begins later, both go on at the same time, and then the first alone
    for chunk in ([(0, 0, 2)], [(0, 2, 5), (1, 0, 3)], [(0, 5, 8), (1, 3, 6)], [(0, 8, 12)]):
        requests = [(s, begin == 0, part(x, s, begin, end, layout)) for s, begin, end in chunk]
        for (s, *_), answer in zip(chunk, server.infer(requests), strict=True):
            found[s].append(answer)
    for s, steps in ((0, 12), (1, 6)):
        joined = np.concatenate(found[s], axis=-1 if layout == "NCT" else 0)
        expected = whole[s, ..., :steps] if layout == "NCT" else whole[:steps, s : s + 1]
        assert expected.any()
        np.testing.assert_array_equal(joined, expected)
    # a sequence that begins anew
    (again,) = server.infer([(0, True, part(x, 0, 0, 12, layout))])
    expected = whole[0] if layout == "NCT" else whole[:, 0:1]
    np.testing.assert_array_equal(again, expected)


def time_first(array: Array, layout: str) -> Array:
    return np.moveaxis(array, -1, 0) if layout == "TNC" else array


def part(x: Tensor, sample: int, begin: int, end: int, layout: str) -> Array:
    """Some steps of one sample, as a request carries them."""
    if layout == "NCT":
        return x[sample, ..., begin:end].numpy()
    return np.ascontiguousarray(time_first(x[sample : sample + 1, ..., begin:end].numpy(), layout))


def test_whole_sequences_are_batched(definitions: Any, tmp_path: Path) -> None:
    model, x = exported(input_type="uint8")
    batching = Batching(largest=2, delay=70)
    server = Server(definitions, write_repository(model, tmp_path, "net", batching).path)
    assert server.config.HasField("dynamic_batching")
    assert not server.config.HasField("sequence_batching")
    assert server.config.dynamic_batching.max_queue_delay_microseconds == 70
    assert server.config.max_batch_size == 2
    arrays = x.numpy().astype(np.uint8)
    whole = so.Session(model, native=False).run(arrays)
    assert whole.any()
    np.testing.assert_array_equal(server.infer([(i, True, a) for i, a in enumerate(arrays)]), whole)


@pytest.mark.parametrize(
    "options", [{"dynamic": False}, {"layout": "TNC"}], ids=["fixed batch", "time first"]
)
def test_what_cannot_be_batched_is_a_call_a_request(
    definitions: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    model, x = exported(**options)
    array = time_first(x.numpy(), options.get("layout", "NCT"))
    written = write_repository(model, tmp_path, "net")
    assert not written.batched
    server = Server(definitions, written.path)
    assert not server.config.HasField("dynamic_batching")
    (found,) = server.infer([(0, True, array)])
    np.testing.assert_array_equal(found, so.Session(model, native=False).run(array))


def test_states_are_paired_whatever_their_names(definitions: Any, tmp_path: Path) -> None:
    model, x = exported(streaming=True)
    written = write_repository(renamed(model, out_of_order(model)), tmp_path, "net")
    server = Server(definitions, written.path)
    assert server.next == {s.input_name: s.output_name for s in server.states.values()}
    found = [
        server.infer([(0, begin == 0, part(x, 0, begin, begin + 4, "NCT"))])[0]
        for begin in (0, 4, 8)
    ]
    whole = so.Session(exported()[0], native=False).run(x.numpy())[0]
    np.testing.assert_array_equal(np.concatenate(found, axis=-1), whole)
    # the model in the repository is one of ours still
    stream = so.Session(str(written.path / "1" / "model.onnx"), native=False).stream(2)
    np.testing.assert_array_equal(stream.run(x.numpy())[0], whole)


def out_of_order(model: onnx.ModelProto) -> dict[str, str]:
    """Names of states: "a" is before "a.b", and "a.next" behind "a.b.next"."""
    states = Metadata.read(model).states
    names = {str(s["input"]): "a" + ".b" * i for i, s in enumerate(states)}
    return names | {f"{old}.next": f"{new}.next" for old, new in names.items()}


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """A copy of a model with other names of inputs and outputs."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for node in copied.graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for value in (*copied.graph.input, *copied.graph.output):
        value.name = names.get(value.name, value.name)
    for prop in copied.metadata_props:
        if prop.key.endswith("states"):
            for old, new in names.items():
                prop.value = prop.value.replace(f'"{old}"', f'"{new}"')
    return copied


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A repository of Triton's, and the address of a server that reads it when it is asked."""
    command = os.environ.get("SYNAPSE_ONNX_TRITON")
    if not command:
        pytest.skip("SYNAPSE_ONNX_TRITON names no command that starts Triton with ONNX Runtime")
    ports = []
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    folder = tmp_path / "models"
    folder.mkdir()
    options = [
        f"--{name}-port={n}" for name, n in zip(("http", "grpc", "metrics"), ports, strict=True)
    ]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*shlex.split(command), f"--model-repository={folder}", "--model-control-mode=explicit",
             "--exit-timeout-secs=1", *options],
            stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{ports[0]}/v2"
    try:
        while True:  # until it answers or ends
            assert server.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health/ready").read()
                break
            time.sleep(0.1)
        yield folder, address
    finally:
        server.kill()
        server.wait()


def ask(address: str, what: str, body: dict[str, Any]) -> Any:
    """Post a request of Triton's HTTP interface."""
    request = urllib.request.Request(f"{address}/{what}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:
            text = reply.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
    return json.loads(text) if text else None


@pytest.mark.parametrize(
    ("layout", "odd"),
    [("NCT", False), ("TNC", False), ("NCT", True)],
    ids=["batched", "time first", "other names"],
)
def test_a_real_server_keeps_interleaved_streams_apart(
    served: tuple[Path, str], layout: str, odd: bool
) -> None:
    folder, address = served
    model, x = exported(streaming=True, layout=layout)
    given_names = renamed(model, out_of_order(model)) if odd else model
    write_repository(given_names, folder, "net", Batching(delay=20_000))
    ask(address, "repository/models/net/load", {})
    whole = so.Session(model, native=False).run(time_first(x.numpy(), layout))
    steps = x.shape[-1]

    def stream(sample: int) -> Array:
        """One client: a step, two steps, three and so on, with the others' in between."""
        parts, begin, size = [], 0, 1
        while begin < steps:
            end = min(begin + size, steps)
            array = part(x, sample, begin, end, layout)
            array = array[None] if layout == "NCT" else array
            given = {
                "name": "x", "datatype": "FP32", "shape": array.shape,
                "data": array.ravel().tolist(),
            }  # fmt: skip
            flags = {"sequence_start": begin == 0, "sequence_end": end == steps}
            body = {"inputs": [given], "parameters": {"sequence_id": sample + 1, **flags}}
            (out,) = ask(address, "models/net/infer", body)["outputs"]
            parts.append(np.array(out["data"], np.float32).reshape(out["shape"]))
            begin, size = end, size + 1
        return np.concatenate(parts, axis=-1 if layout == "NCT" else 0)

    with ThreadPoolExecutor(2) as clients:
        found = list(clients.map(stream, range(2)))
    expected = [whole[i : i + 1] if layout == "NCT" else whole[:, i : i + 1] for i in range(2)]
    for mine, right in zip(found, expected, strict=True):
        assert right.any()
        np.testing.assert_array_equal(mine, right)
    # a sequence that begins anew, and whether requests went through the model together
    np.testing.assert_array_equal(stream(0), expected[0])
    with urllib.request.urlopen(f"{address}/models/net/stats") as reply:
        (stats,) = json.loads(reply.read())["model_stats"]
    joined = any(calls["batch_size"] > 1 for calls in stats["batch_stats"])
    assert joined is (layout == "NCT"), stats


def test_names_are_quoted(definitions: Any, tmp_path: Path) -> None:
    model, _ = exported()
    odd = 'a "b"\\ ä\n'
    folder = write_repository(renamed(model, {"x": odd}), tmp_path, "net").path
    assert [value.name for value in read(definitions, folder).input] == [odd]


# -- the command ---------------------------------------------------------------------------------


def repository(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, ["repository", *map(str, arguments)])


def test_command(definitions: Any, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    result = repository(
        "--triton", folder, MODELS / "tones_stream.onnx", "--name", "tones", "--max-batch", "5",
        "--idle", "0.5", "--sequences", "7", "--delay", "0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert str(folder / "tones") in result.output
    assert "batching  up to 5" in result.output
    config = read(definitions, folder / "tones")
    assert (config.name, config.max_batch_size) == ("tones", 5)
    batching = config.sequence_batching
    assert batching.max_sequence_idle_microseconds == 500_000
    assert batching.oldest.max_candidate_sequences == 7
    model = onnx.load(folder / "tones" / "1" / "model.onnx")
    assert model == onnx.load(MODELS / "tones_stream.onnx")
    assert {s.input_name for s in batching.state} == {
        str(s["input"]) for s in Metadata.read(model).states
    }


def test_a_model_that_is_there_stays(tmp_path: Path) -> None:
    kept = tmp_path / "digits_q8" / "config.pbtxt"
    kept.parent.mkdir()
    kept.write_text("mine")
    result = repository("--triton", tmp_path, MODELS / "digits_q8.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {kept.parent} is there already")
    assert kept.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [kept.parent]


def test_a_model_of_somebody_else_is_refused(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "one", [x], [y])), tmp_path / "m.onnx"
    )
    result = repository("--triton", tmp_path / "models", tmp_path / "m.onnx")
    assert result.exit_code == 2
    assert "carries no synapse-onnx metadata" in result.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    model = onnx.load(MODELS / "digits_q8.onnx")
    with pytest.raises(InputError, match="a model's name may have"):
        write_repository(model, tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = repository("--triton", tmp_path / "file" / "models", MODELS / "digits_q8.onnx")
    assert result.exit_code == 2
    assert "cannot be made" in result.stderr


def test_a_type_that_triton_lacks(tmp_path: Path) -> None:
    model = onnx.load(MODELS / "digits_q8.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.COMPLEX64
    with pytest.raises(ModelError, match="no type for spikes"):
        write_repository(model, tmp_path, "net")
    assert list(tmp_path.iterdir()) == []
