"""Throw damaged files and random arguments at the command line, and say what it does not refuse.

    python tests/fuzz.py --count 10000 --seed 1 --keep /tmp/found

A case is a call of the command line in a fresh folder, made of the seed and its number alone. It
runs in a process forked from this one, which has imported everything once. A case is a fault if it
ends by a traceback, a signal, an exit code other than 0, 1 or 2, or not within 10 seconds, if it
takes more than 2 GiB, writes more than one line to stderr, or leaves half a file behind.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import click
import h5py
import nir  # noqa: F401  imported once, before the fork
import numpy as np
import onnx
import onnxruntime  # noqa: F401
import torch
from forked import leave
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.cli._models import inputs_of
from synapse_onnx.readers import all_readers

ROOT = Path(__file__).parents[1]

#: seconds and bytes that a case may take
SECONDS, MEMORY = 10, 2 << 30
#: numbers that ought not to stand where they are put
ABSURD = (0, -1, 1, 2, 3, 7, 127, 255, 256, 65535, 2**31 - 1, 2**31, 10**12, 2**62, 2**63 - 1)
#: what begins a part of a file that other parts point to
MARKS = (
    b"GCOL", b"HEAP", b"TREE", b"SNOD", b"OHDR", b"FRHP", b"FSHD", b"\x89HDF",
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"descr", b"shape",
)  # fmt: skip

SOURCE = """
import synapse_onnx as so
from torch import nn

def build():
    neuron = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
    return nn.Sequential(so.block.cuba.Dense(neuron, 6, 5, pre_hook_fx=so.quantize.q8),
                         so.block.cuba.Dense(neuron, 5, 3))
"""


@dataclass
class Case:
    """One call: its arguments, the files that it finds, and the one that it may write."""

    kind: str
    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    target: str | None = None


# -- damage ---------------------------------------------------------------------------------------


def damaged(draw: np.random.Generator, data: bytes) -> bytes:
    """Change bytes: anywhere, or near the marks of a format."""
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        size = len(changed)
        if not size:
            break
        place = int(draw.integers(size))
        marks = [m for mark in MARKS for m in _finds(changed, mark)]
        if marks and draw.random() < 0.5:
            place = min(int(draw.choice(marks)) + int(draw.integers(64)), size - 1)
        match int(draw.integers(6)):
            case 0:
                changed[place] ^= 1 << int(draw.integers(8))
            case 1:
                changed[place] = int(draw.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                del changed[place:]
            case 3:
                more = draw.integers(0, 256, int(draw.integers(1, 40)), dtype=np.uint8)
                changed[place:place] = more.tobytes()
            case 4:
                number = int(draw.choice(ABSURD)) & (2**64 - 1)
                changed[place : place + 8] = number.to_bytes(8, "little")
            case _:
                end = place + int(draw.integers(1, 200))
                other = int(draw.integers(size))
                changed[place:end] = changed[other : other + end - place]
    return bytes(changed)


def _finds(data: bytes | bytearray, mark: bytes) -> list[int]:
    places, place = [], data.find(mark)
    while place >= 0 and len(places) < 50:
        places.append(place)
        place = data.find(mark, place + 1)
    return places


def _damaged_json(draw: np.random.Generator, found: Any) -> Any:
    """Replace something within a value that JSON can hold."""
    if isinstance(found, list | dict) and found and draw.random() < 0.9:
        keys = list(found) if isinstance(found, dict) else list(range(len(found)))
        key = keys[int(draw.integers(len(keys)))]
        if draw.random() < 0.15:
            del found[key]
        else:
            found[key] = _damaged_json(draw, found[key])
        return found
    odd: list[Any] = [None, [], {}, "", "x", -1, 1e300, float("nan"), float("inf"), [[]], True]
    return (odd + list(ABSURD))[int(draw.integers(len(odd) + len(ABSURD)))]


def _messages(message: Message) -> Iterator[Message]:
    """Every message within a message, itself first."""
    yield message
    for entry, value in message.ListFields():
        if entry.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if isinstance(value, Sequence) else [value]:
                yield from _messages(item)


def damaged_model(draw: np.random.Generator, data: bytes) -> bytes:
    """Change fields of a model's messages; a message is chosen by its kind first."""
    model = onnx.ModelProto.FromString(data)
    if draw.random() < 0.15 and len(model.metadata_props):
        prop = model.metadata_props[int(draw.integers(len(model.metadata_props)))]
        with contextlib.suppress(ValueError):
            prop.value = json.dumps(_damaged_json(draw, json.loads(prop.value)))
    for _ in range(int(draw.integers(1, 4))):
        kinds: dict[str, list[Message]] = {}
        for message in _messages(model):
            kinds.setdefault(type(message).__name__, []).append(message)
        same = kinds[str(draw.choice(sorted(kinds)))]
        _change(draw, same[int(draw.integers(len(same)))], same)
    return model.SerializeToString()


def _change(draw: np.random.Generator, message: Any, same: Sequence[Any]) -> None:
    """Change one field of a message."""
    fields = message.DESCRIPTOR.fields
    given = [entry for entry, _ in message.ListFields()]
    chosen = fields if draw.random() < 0.2 or not given else given
    entry = chosen[int(draw.integers(len(chosen)))]
    other = same[int(draw.integers(len(same)))]
    name, how = entry.name, draw.random()
    repeated = isinstance(getattr(message, name), Sequence) and not isinstance(
        getattr(message, name), str | bytes
    )
    if how < 0.2:
        message.ClearField(name)
    elif how < 0.4:
        copied = type(other)()
        copied.CopyFrom(other)
        message.ClearField(name)
        for known, value in copied.ListFields():
            if known.name == name:
                part = type(message)()
                _put(part, name, value)
                message.MergeFrom(part)
    elif repeated and how < 0.6:
        values = getattr(message, name)
        if len(values):
            i = int(draw.integers(len(values)))
            if draw.random() < 0.5:
                del values[i]
            elif entry.type == FieldDescriptor.TYPE_MESSAGE:
                values.add().CopyFrom(values[i])
            else:
                values.append(values[i])
    elif entry.type != FieldDescriptor.TYPE_MESSAGE:
        value = _scalar(draw, entry)
        values = getattr(message, name)
        try:
            if not repeated:
                setattr(message, name, value)
            elif len(values):
                values[int(draw.integers(len(values)))] = value
            else:
                values.append(value)
        except (ValueError, TypeError):  # an enum or 32 bits that hold no such number
            message.ClearField(name)


def _put(message: Any, name: str, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)


def _scalar(draw: np.random.Generator, entry: Any) -> Any:
    if entry.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return float(draw.choice([0, -1, 1e30, np.nan, np.inf]))
    if entry.type == FieldDescriptor.TYPE_BYTES:
        return draw.integers(0, 256, int(draw.integers(0, 64)), dtype=np.uint8).tobytes()
    if entry.type == FieldDescriptor.TYPE_STRING:
        return str(
            draw.choice(["", "x", "Loop", "Scan", "If", "Expand", "../x", "ai.synapse", "é\n", "T"])
        )
    return int(draw.choice(ABSURD[:10] if draw.random() < 0.5 else ABSURD))


def damaged_hdf5(draw: np.random.Generator, data: bytes) -> bytes:
    """Change an HDF5 file by its own library: another value, shape or kind in some place."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(int(draw.integers(1, 4))):
            name, other = (names[int(draw.integers(len(names)))] for _ in range(2))
            # what an earlier change has taken away or made a circle of
            with contextlib.suppress(KeyError, RuntimeError, OSError, ValueError):
                _change_hdf5(draw, file, name, other)
    return buffer.getvalue()


def _change_hdf5(draw: np.random.Generator, file: Any, name: str, other: str) -> None:
    how = int(draw.integers(9))
    if how == 0:
        del file[name]
        return
    thing = file[other]
    shape = tuple(int(n) for n in draw.integers(0, 4, int(draw.integers(4))))
    if how == 8 and isinstance(file[name], h5py.Dataset):
        shape = file[name].shape
    del file[name]
    match how:
        case 1:
            file[name] = thing
        case 2:
            file[name] = h5py.SoftLink(f"/{other}")
        case 3:
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        case 4:
            file.create_dataset(name, (10**12,), "f8", chunks=(1 << 16,))
        case 5:
            file.create_dataset(name, data=h5py.Empty("f4"))
        case 6:
            file[name] = float(draw.choice([0, -1, 1e30, np.nan, np.inf]))
        case 7:
            file[name] = str(draw.choice(["", "Input", "NIRGraph", "dense", "x" * 1000]))
        case _:
            file[name] = np.ones(shape, str(draw.choice(["f4", "i8", "u1", "c8"])))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(shape: object, kind: str = "<f4", data: bytes = b"") -> bytes:
    """Return an .npy file whose header says what it likes."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def damaged_zip(draw: np.random.Generator, data: bytes) -> bytes:
    """Pack the entries of an archive again: changed, renamed, left out, absurd or endless."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    name = str(draw.choice(sorted(entries)))
    match int(draw.integers(6)):
        case 0:
            entries[name] = damaged(draw, entries[name])
        case 1:
            entries[str(draw.choice(["x", "../x", "a\n.npy", "steps.npy"]))] = entries.pop(name)
        case 2:
            del entries[name]
        case 3:
            entries[name] = _absurd_array(draw)
        case 4:
            entries[name] = header((1 << 28,), data=bytes(1 << 26))
        case _:
            entries[name] = npy(np.array([{}], dtype=object))
    return archive(entries)


def _absurd_array(draw: np.random.Generator) -> bytes:
    shapes = [(10**12,), (2**40, 2**40), (-1,), (0,), (1,) * 70, "x", (True,), (2**31, 2), 3, ()]
    kinds = ["<f4", "|O", "<U1000000000", "|V8", "<M8[s]", "nonsense", "<c16", "|b1", ">i8"]
    shape = shapes[int(draw.integers(len(shapes)))]
    return header(shape, str(draw.choice(kinds)), bytes(int(draw.integers(0, 100))))


# -- cases ----------------------------------------------------------------------------------------


class Cases:
    """Makes the cases of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.models = {path.name: path.read_bytes() for path in sorted(ROOT.glob("models/*.onnx"))}
        self.inputs = {name: self._input(data) for name, data in self.models.items()}
        folder = ROOT / "tests" / "reference"
        self.nets = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.net"))}
        self.nir = (ROOT / "models" / "snntorch_nir.nir").read_bytes()
        self.source, self.checkpoint, self.exported = self._network()
        self.state = self._state()
        self.kinds: dict[str, tuple[float, Callable[[np.random.Generator], Case]]] = {
            "onnx": (0.42, self._onnx),
            "net": (0.12, self._net),
            "nir": (0.06, self._nir),
            "npy": (0.06, self._npy),
            "npz": (0.08, self._npz),
            "csv": (0.06, self._csv),
            "state": (0.03, self._saved),
            "pt": (0.06, self._pt),
            "arguments": (0.11, self._arguments),
        }

    def make(self, number: int) -> Case:
        """Make a case from its number."""
        draw = np.random.default_rng([self.seed, number])
        names, shares = list(self.kinds), [share for share, _ in self.kinds.values()]
        return self.kinds[str(draw.choice(names, p=shares))][1](draw)

    @staticmethod
    def _input(data: bytes) -> np.ndarray:
        (shape,) = (shape for _, shape in inputs_of(onnx.ModelProto.FromString(data)).values())
        sizes = [size if isinstance(size, int) else 4 if i else 1 for i, size in enumerate(shape)]
        return (np.random.default_rng(0).random(sizes) < 0.3).astype(np.float32)

    @staticmethod
    def _network() -> tuple[bytes, bytes, bytes]:
        namespace: dict[str, Any] = {}
        exec(SOURCE, namespace)
        torch.manual_seed(0)
        module = namespace["build"]()
        saved = io.BytesIO()
        torch.save(module.state_dict(), saved)
        model = so.export(module, torch.zeros(1, 6, 4))
        return SOURCE.encode(), saved.getvalue(), model.SerializeToString()

    def _state(self) -> bytes:
        stream = so.Session(onnx.ModelProto.FromString(self.models["drift_stream.onnx"])).stream()
        with tempfile.TemporaryDirectory() as folder:
            stream.save(Path(folder, "state.npz"))
            return Path(folder, "state.npz").read_bytes()

    def _one(self, draw: np.random.Generator) -> tuple[bytes, np.ndarray]:
        name = str(draw.choice(sorted(self.models)))
        return self.models[name], self.inputs[name]

    def _onnx(self, draw: np.random.Generator) -> Case:
        data, spikes = self._one(draw)
        change = damaged_model if draw.random() < 0.7 else damaged
        files = {"m.onnx": change(draw, data), "i.npy": npy(spikes)}
        match int(draw.integers(8)):
            case 0:
                return Case("onnx", ["inspect", "m.onnx"], files)
            case 1:
                return Case("onnx", ["inspect", "m.onnx", "-i", "i.npy", "--json"], files)
            case 2:
                call = ["bench", "m.onnx", "--seconds", "0", "--steps", "4"]
                return Case("onnx", call, files)
            case 3:
                data = change(draw, self.exported)
                files = {"m.onnx": data, "net.py": self.source, "w.pt": self.checkpoint}
                call = ["verify", "net.py:build", "m.onnx", "--weights", "w.pt", "--steps", "6"]
                return Case("onnx", [*call, "--report", "r.html"], files, "r.html")
            case _:
                call = ["run", "m.onnx", "-i", "i.npy", "-o", "o.npz"]
                return Case("onnx", call, files, "o.npz")

    def _net(self, draw: np.random.Generator) -> Case:
        name = str(draw.choice(sorted(self.nets)))
        change = damaged_hdf5 if draw.random() < 0.5 else damaged
        model = self.models[f"lava_{name}.onnx"]
        files = {"n.net": change(draw, self.nets[name]), "m.onnx": model}
        call = ["verify", "n.net", "m.onnx", "--steps", "5", "--samples", "1"]
        return Case("net", call, files)

    def _nir(self, draw: np.random.Generator) -> Case:
        change = damaged_hdf5 if draw.random() < 0.5 else damaged
        model = self.models["snntorch_nir_float.onnx"]
        files = {"n.nir": change(draw, self.nir), "m.onnx": model}
        call = ["verify", "n.nir", "m.onnx", "--steps", "5", "--samples", "1"]
        return Case("nir", call, files)

    def _npy(self, draw: np.random.Generator) -> Case:
        data, spikes = self._one(draw)
        absurd = draw.random() < 0.3
        files = {"m.onnx": data, "i.npy": _absurd_array(draw) if absurd else npy(spikes)}
        if not absurd:
            files["i.npy"] = damaged(draw, files["i.npy"])
        return Case("npy", ["run", "m.onnx", "-i", "i.npy", "-o", "o.npy"], files, "o.npy")

    def _npz(self, draw: np.random.Generator) -> Case:
        data, spikes = self._one(draw)
        events = {n: npy(np.arange(5.0) % 2) for n in "xypt"} if draw.random() < 0.3 else {}
        packed = archive({f"{n}.npy": d for n, d in events.items()} or {"a.npy": npy(spikes)})
        change = damaged_zip if draw.random() < 0.6 else damaged
        files = {"m.onnx": data, "i.npz": change(draw, packed)}
        more = ["--dt", "1"] if events else []
        call = ["run", "m.onnx", "-i", "i.npz", "-o", "o.npz", *more]
        return Case("npz", call, files, "o.npz")

    def _csv(self, draw: np.random.Generator) -> Case:
        data, _ = self._one(draw)
        rows = [",".join(str(int(n)) for n in draw.integers(0, 2, 4)) for _ in range(5)]
        odd = [
            "1e308",
            "-1",
            "nan",
            "inf",
            "1e12",
            "x",
            "",
            "1,2",
            '"1"',
            "\0",
            "é",
            "0x10",
            "9" * 400,
        ]
        if draw.random() < 0.6:
            row = rows[2].split(",")
            row[int(draw.integers(4))] = str(draw.choice(odd))
            rows[2] = ",".join(row)
        text = "\n".join(["x,y,p,t" if draw.random() < 0.8 else str(draw.choice(odd)), *rows])
        raw = text.encode()
        files = {"m.onnx": data, "i.csv": damaged(draw, raw) if draw.random() < 0.5 else raw}
        call = ["run", "m.onnx", "-i", "i.csv", "--dt", "1", "-o", "o.npz", "--decode", "rate"]
        return Case("csv", call, files, "o.npz")

    def _saved(self, draw: np.random.Generator) -> Case:
        name = "drift_stream.onnx"
        change = damaged_zip if draw.random() < 0.6 else damaged
        files = {"m.onnx": self.models[name], "i.npy": npy(self.inputs[name])}
        files["s.npz"] = change(draw, self.state)
        call = ["run", "m.onnx", "-i", "i.npy", "-o", "o.npz", "--restore", "s.npz"]
        return Case("state", call, files, "o.npz")

    def _pt(self, draw: np.random.Generator) -> Case:
        files = {"net.py": self.source, "m.onnx": self.exported}
        if draw.random() < 0.3:
            with zipfile.ZipFile(io.BytesIO(self.checkpoint)) as file:
                entries = {name: file.read(name) for name in file.namelist()}
            name = next(name for name in entries if name.endswith("data.pkl"))
            files["w.pt"] = archive(entries | {name: damaged(draw, entries[name])})
        else:
            files["w.pt"] = damaged(draw, self.checkpoint)
        call = ["verify", "net.py:build", "m.onnx", "--weights", "w.pt", "--steps", "5"]
        return Case("pt", [*call, "--samples", "1"], files)

    def _arguments(self, draw: np.random.Generator) -> Case:
        """Draw a command, and values for its options that are not always of their kind."""
        name = str(draw.choice([*main.list_commands(click.Context(main)), "nothing", "--version"]))
        command = main.get_command(click.Context(main), name)
        model, spikes = self._one(draw)
        files = {"m.onnx": model, "i.npy": npy(spikes), "net.py": self.source}
        files |= {"w.pt": self.checkpoint, "e.csv": b"x,y,p,t\n0,0,0,1\n"}
        words = ["m.onnx", "i.npy", "net.py:build", "w.pt", "e.csv", "absent.onnx", ".", "o.npz"]
        words += [
            "o.npy",
            "o.onnx",
            "o.html",
            "",
            "-",
            "--",
            "-1",
            "0",
            "1",
            "3",
            "nan",
            "inf",
            "x",
        ]
        words += [
            "1e400",
            "99999999999999999999",
            "1,8,8",
            "6",
            "a=b",
            "=",
            "cpu",
            "both",
            "no",
            "é",
        ]
        words += [
            "/dev/null",
            "/proc/self/mem",
            "\udcff",
            "a\nb",
            "net.py:",
            ":",
            "os:getcwd",
            "TNC",
        ]

        def word() -> str:
            return str(draw.choice(words[:5] if draw.random() < 0.3 else words))

        arguments = [name]
        for parameter in command.params if command else ():
            if parameter.name in ("serve", "fetch_runtime"):
                continue  # serves until it is interrupted, and asks a registry
            if isinstance(parameter, click.Argument):
                if draw.random() < 0.9:
                    source = parameter.name == "source"
                    right = "net.py:build" if source else "m.onnx"
                    arguments.append(right if draw.random() < 0.7 else word())
            elif draw.random() < (0.9 if parameter.required else 0.15):
                arguments.append(parameter.opts[-1])
                if not getattr(parameter, "is_flag", False):
                    right = {"inputs": "i.npy", "output": "o.npz", "seconds": "0", "shapes": "6"}
                    known = str(parameter.name) in right and draw.random() < 0.7
                    value = right[str(parameter.name)] if known else word()
                    arguments.append("0" if parameter.name == "seconds" else value)
        if name == "export" and draw.random() < 0.95:
            arguments.append("--nothing")  # a whole export takes seconds
        if name == "bench":
            arguments += ["--seconds", "0"]
        return Case("arguments", arguments, files, "o.npz")


# -- running --------------------------------------------------------------------------------------

#: what stands in the target before a call
OLD = b"what was there before"


def run(case: Case, folder: Path, make: Callable[[], None] = lambda: None) -> tuple[str, list[str]]:
    """Run a case in a process of its own; return how it ended, and what is at fault."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    target = folder / case.target if case.target else None
    if target is not None:
        target.write_bytes(OLD)
    begin = time.perf_counter()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # what the child begins with is less than what its parent has: pages of files are not shared
        os.write(writing, str(_resident()).encode())
        os.close(writing)
        _child(case.arguments, folder, make)
    os.close(writing)
    resident = int(os.read(reading, 32))  # as soon as it is there; the child goes on
    os.close(reading)
    status, usage = _wait(child)
    took = time.perf_counter() - begin
    faults = []
    code = os.waitstatus_to_exitcode(status)
    error = (folder / ".stderr").read_text(errors="replace")
    if code == -signal.SIGALRM or took > SECONDS + 5:
        faults.append(f"hang: {took:.1f} s")
    elif code < 0:
        faults.append(f"signal {-code}")
    elif code not in (0, 1, 2):
        faults.append(f"exit code {code}: {error.splitlines()[-1:]}")
    if "Traceback" in error:
        faults.append("traceback")
    elif error.count("\n") > 1:
        faults.append(f"{error.count(chr(10))} lines of stderr: {error[:300]}")
    if code == 2 and not error.startswith("error: "):
        faults.append(f"no sentence: {error[:300]!r}")
    grown = usage.ru_maxrss * 1024 - resident
    if grown > MEMORY:
        faults.append(f"memory: {grown / 2**30:.1f} GiB")
    faults += _left(case, folder, target, code)
    return str(code), faults


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _child(arguments: list[str], folder: Path, make: Callable[[], None]) -> NoReturn:
    """Call the command line, and end the process."""
    os.setsid()
    os.chdir(folder)
    for number, name in ((1, ".stdout"), (2, ".stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2 * MEMORY, taken + 2 * MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)

    def work() -> None:
        make()
        main(arguments, prog_name="synapse-onnx")

    leave(work, failed=99)


def _wait(child: int) -> tuple[int, Any]:
    """Wait for a process, and end what it has started."""
    deadline = time.perf_counter() + SECONDS + 10
    while time.perf_counter() < deadline:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.002)
    else:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return status, usage


def _left(case: Case, folder: Path, target: Path | None, code: int) -> list[str]:
    """Say what is wrong with the files that a call has left."""
    faults = []
    known = {".stdout", ".stderr", "__pycache__", *case.files}
    names = {path.name for path in folder.iterdir()} - known
    litter = sorted(name for name in names if name.startswith("."))
    if litter:
        faults.append(f"litter: {', '.join(litter)}")
    if target is not None:
        data = target.read_bytes()
        if code == 2 and data != OLD:
            faults.append("the target was changed by a call that failed")
        elif data != OLD and not whole(target):
            faults.append(f"half a file: {target.name}")
    return faults


def whole(path: Path) -> bool:
    """Whether a file that was written can be read to its end."""
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".npy":
                np.load(path, allow_pickle=False)
            case ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return all(file[name] is not None for name in file.files)
            case ".html":
                return data.rstrip().endswith(b"</html>")
            case ".onnx":
                onnx.checker.check_model(onnx.ModelProto.FromString(data))
    except (OSError, ValueError, DecodeError, zipfile.BadZipFile, onnx.checker.ValidationError):
        return False
    return True


@click.command()
@click.option("--count", default=1000, show_default=True, help="Cases to run.")
@click.option("--seed", default=1, show_default=True, help="Other cases for every seed.")
@click.option("--first", default=0, show_default=True, help="Number of the first case.")
@click.option("--only", multiple=True, help="Kinds to run alone (repeatable).")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for cases at fault.")
def command(count: int, seed: int, first: int, only: tuple[str, ...], keep: Path | None) -> None:
    """Run cases, and leave with exit code 1 where one was at fault."""
    os.environ.setdefault("SYNAPSE_ONNX_LIBRARY", "none")
    torch.set_num_threads(1)
    all_readers()
    for name in main.list_commands(click.Context(main)):
        main.get_command(click.Context(main), name)
    cases = Cases(seed)
    counts: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for number in range(first, first + count):
        case = cases.make(number)
        if only and case.kind not in only:
            continue
        if sum(counts.values()) % 500 == 499:
            print(f"at case {number}, {wrong} at fault", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            ended, faults = run(case, Path(name))
            if any(fault.startswith("hang") for fault in faults):
                ended, faults = run(case, Path(name))  # the machine may have stood still
            counts[case.kind, ended] += 1
            if not faults:
                continue
            wrong += 1
            print(f"{seed}/{number} {case.kind} {case.arguments}: {'; '.join(faults)}", flush=True)
            if keep is not None:
                kept = keep / f"{seed}-{number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(name, kept)
    for kind in cases.kinds:
        codes = {code: n for (which, code), n in sorted(counts.items()) if which == kind}
        if codes:
            text = ", ".join(f"{n} exit {code}" for code, n in codes.items())
            print(f"{kind:10} {sum(codes.values()):6}  {text}")
    print(f"{sum(counts.values())} cases, {wrong} at fault")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    command()
