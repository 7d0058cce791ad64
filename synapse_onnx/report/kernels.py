"""Which kernels of ONNX Runtime run a model, and what part of the time each takes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import ArrayLike

from synapse_onnx.runtime.session import Session

__all__ = ["Kernel", "profile_kernels"]

#: runs of a profile
_RUNS = 4
#: operators whose nodes run other nodes
_HOLDERS = ("If", "Loop", "Scan")

_Group = tuple[str, bool, str, tuple[str, ...]]


@dataclass(frozen=True)
class Kernel:
    """Nodes that ONNX Runtime ran, of one op with inputs of the same types.

    Attributes:
        op: type of the nodes.
        native: whether a kernel of synapse-onnx ran them.
        provider: execution provider.
        types: types of their inputs, without repetitions, in their order.
        nodes: number of different nodes.
        calls: how often they ran in all; a node in a loop runs once a step.
        share: fraction of the time of all nodes, 0 to 1; a loop or a branch counts without the
            nodes within it.
    """

    op: str
    native: bool
    provider: str
    types: tuple[str, ...]
    nodes: int
    calls: int
    share: float

    @property
    def numbers(self) -> str:
        """Return "integer", "float", or "mixed" where inputs are of both kinds; "" without any."""
        floats = {"float" in name or name == "double" for name in self.types}
        if len(floats) != 1:
            return "mixed" if floats else ""
        return "float" if floats.pop() else "integer"


def profile_kernels(
    model: onnx.ModelProto,
    inputs: Sequence[ArrayLike],
    native: bool | None = None,
    providers: Sequence[str] | None = None,
) -> tuple[Kernel, ...]:
    """Return what ONNX Runtime's own profile says of one run, the most time first.

    The model runs several times and the quickest run counts: the first one takes memory, and other
    programs may hold up any.

    Args:
        model: any model that :class:`Session` takes.
        inputs: as for :meth:`Session.run`.
        native: as for :class:`Session`.
        providers: as for :class:`Session`.

    Raises:
        ModelError: ONNX Runtime refuses the model, or fails on the values.
        InputError: wrong number of inputs, or values that the type cannot hold.
        ShapeError: wrong rank or size.
    """
    with tempfile.TemporaryDirectory(prefix="synapse-onnx-") as folder:
        session = Session(model, providers, native, profile=os.path.join(folder, "profile"))
        try:
            for _ in range(_RUNS):
                session.run(*inputs)
        finally:
            path = session.session.end_profiling()
        with open(path, encoding="utf-8") as file:
            events = json.load(file)
    return _kernels(events, session.native_nodes)


@dataclass
class _Call:
    """A call of a node; ``own`` is its time in µs without that of the nodes within it."""

    name: tuple[str, Any]
    group: _Group
    begin: float
    time: float
    own: float
    holder: _Call | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """Return the names of the nodes that it lies in, and its own: unlike for each node."""
        return (*(self.holder.identity if self.holder else ()), self.name)


def _kernels(events: Sequence[Mapping[str, Any]], own: Mapping[str, str]) -> tuple[Kernel, ...]:
    """Sum the quickest run of a profile per op, provider and types of inputs."""
    groups: dict[_Group, list[_Call]] = {}
    for call in _calls(events, own):
        groups.setdefault(call.group, []).append(call)
    times = {group: sum(max(call.own, 0.0) for call in calls) for group, calls in groups.items()}
    total = sum(times.values())
    kernels = [
        Kernel(
            *group,
            nodes=len({call.identity for call in calls}),
            calls=len(calls),
            share=times[group] / total if total else 0.0,
        )
        for group, calls in groups.items()
    ]
    return tuple(sorted(kernels, key=lambda kernel: (-kernel.share, kernel.op, kernel.types)))


def _calls(events: Sequence[Mapping[str, Any]], own: Mapping[str, str]) -> list[_Call]:
    """Return the calls of the quickest run.

    A call is logged when it ends, so what ran within a loop or branch is logged before it, and
    began after it. That its time lies within would not do: times are cut to whole µs.
    """
    runs = [event for event in events if event["name"] == "model_run"]
    run = min(runs, key=lambda event: float(event["dur"]))
    begin, end = run["ts"], run["ts"] + run["dur"]
    suffix = "_kernel_time"
    calls: list[_Call] = []
    free: list[_Call] = []  # those that belong to no loop or branch yet
    for event in events:
        if event["cat"] != "Node" or not event["name"].endswith(suffix):
            continue
        if not begin <= event["ts"] <= end:
            continue
        args, name, time = event["args"], event["name"].removesuffix(suffix), event["dur"]
        op = args["op_name"]
        types = (kind for value in args["input_type_shape"] for kind in value)
        group = (op, own.get(name) == op, args["provider"], tuple(dict.fromkeys(types)))
        call = _Call((name, args["node_index"]), group, event["ts"], time, time)
        while op in _HOLDERS and free and free[-1].begin >= call.begin:
            inner = free.pop()
            inner.holder = call
            call.own -= inner.time
        free.append(call)
        calls.append(call)
    return calls
