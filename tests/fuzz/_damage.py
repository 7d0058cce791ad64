"""Damage to files: bytes, messages of a model, HDF5, archives."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import nir  # noqa: F401  imported once, before the fork
import numpy as np
import onnx
import onnxruntime  # noqa: F401
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

#: numbers that ought not to stand where they are put
ABSURD = (0, -1, 1, 2, 3, 7, 127, 255, 256, 65535, 2**31 - 1, 2**31, 10**12, 2**62, 2**63 - 1)
#: what begins a part of a file that other parts point to
MARKS = (
    b"GCOL", b"HEAP", b"TREE", b"SNOD", b"OHDR", b"FRHP", b"FSHD", b"\x89HDF",
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"descr", b"shape",
)  # fmt: skip


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
            entries[name] = absurd_array(draw)
        case 4:
            entries[name] = header((1 << 28,), data=bytes(1 << 26))
        case _:
            entries[name] = npy(np.array([{}], dtype=object))
    return archive(entries)


def absurd_array(draw: np.random.Generator) -> bytes:
    shapes = [(10**12,), (2**40, 2**40), (-1,), (0,), (1,) * 70, "x", (True,), (2**31, 2), 3, ()]
    kinds = ["<f4", "|O", "<U1000000000", "|V8", "<M8[s]", "nonsense", "<c16", "|b1", ">i8"]
    shape = shapes[int(draw.integers(len(shapes)))]
    return header(shape, str(draw.choice(kinds)), bytes(int(draw.integers(0, 100))))
