"""The verdict on one case: torch against every way to run the graph."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import torch
from onnx.reference import ReferenceEvaluator

import synapse_onnx as so
from synapse_onnx.errors import SynapseError
from synapse_onnx.model.layout import time_first, time_last
from synapse_onnx.runtime import native
from synapse_onnx.runtime import providers as execution
from synapse_onnx.verification import subject
from synapse_onnx.verification.arrays import RTOL

from .build import Case, Network, Value, build, inputs_of

#: further inputs on which torch is compared with the graph; they cost little beside the export
_MORE = 4


@dataclass
class Verdict:
    """What was found on one case.

    Attributes:
        problems: sentences on what differs; none where all is equal.
        comparisons: runs of a network on one input in one way that were compared.
        refused: the sentence by which the network was refused, or "".
        exact: whether every output was held to equality.
        ran: variants that ran.
    """

    problems: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    comparisons: int = 0
    refused: str = ""
    exact: bool = False


def judge(case: Case) -> Verdict:
    """Export the network of a case and compare torch with all ways of running the graph."""
    verdict = Verdict()
    module, given = build(case), inputs_of(case, case["batch"], case["steps"])
    try:
        model = so.export(module, _wrapped(given), **case["export"])
    except SynapseError as error:
        verdict.refused = str(error)
        return verdict
    report = so.verify(module, model, _wrapped(given), native=False)
    verdict.comparisons += len(report.shapes) * (1 + case["export"]["streaming"])
    if not report.ok:
        verdict.problems.append(f"verify: {report}")
        return verdict
    exact = _exact(report)
    verdict.exact = all(exact)
    base = so.Session(model, native=False, threads=1)
    if case["export"]["dynamic"]:
        for seed in range(2, 2 + _MORE):
            more = inputs_of(case, 4, 17, seed)
            verdict.comparisons += 1
            if not _same(_torch(module, more, case), outputs(base, _arrays(more, case)), exact):
                report = so.verify(module, model, _wrapped(more), native=False)
                if not report.ok:
                    verdict.problems.append(f"verify, input {seed}: {report}")
    values = [given]
    if case["export"]["dynamic"]:
        values += [inputs_of(case, 1, steps, 1) for steps in (1, 7)]
    feeds = [_arrays(value, case) for value in values]
    expected = [outputs(base, feed) for feed in feeds]
    for variant in case["variants"]:
        if not _can(variant, case, model):
            continue
        if variant == "reference":
            found = [_reference(model, base, feed) for feed in feeds]
        else:
            with _running(variant):
                session = subject.Session(model, native=variant == "native")
            cut = case["export"]["dynamic"]
            found = [outputs(session, feed, chunks=base.streaming, cut=cut) for feed in feeds]
        verdict.comparisons += len(feeds)
        verdict.ran.append(variant)
        # only the verifier, which knows no evaluator, can say if a rounding decided
        near = variant != "reference"
        for value, e, f in zip(values, expected, found, strict=True):
            if _same(e, f, exact, near=near):
                continue
            # a sum that is exact on one input may round on another, and a spike within rounding
            with _running(variant):
                other = so.verify(module, model, _wrapped(value), native=variant == "native")
            rows = _exact(other)
            if not other.ok:
                verdict.problems.append(f"{variant}: {other}")
            elif (all(rows) or not near) and not _same(e, f, rows, near=near):
                verdict.problems.append(f"{variant}: {_difference(e, f, rows)}")
    return verdict


def _exact(report: so.Report) -> list[bool]:
    """Which outputs were held to equality."""
    return [row.exact for row in report.outputs if row.kind == "output"]


def _wrapped(value: Value) -> Any:
    return [value] if isinstance(value, tuple) else value


def _arrays(value: Value, case: Case) -> list[np.ndarray]:
    parts = value if isinstance(value, tuple) else (value,)
    kind = np.dtype(case["export"]["input_type"])
    layout = case["export"]["layout"]
    return [time_first(part.numpy().astype(kind), layout) for part in parts]


def _torch(module: Network, value: Value, case: Case) -> list[np.ndarray]:
    """Run the network in torch; the outputs as the graph has them."""
    with torch.no_grad():
        flat, _ = torch.utils._pytree.tree_flatten(module(value))
    return [time_first(value.numpy(), case["export"]["layout"]) for value in flat]


def _can(variant: str, case: Case, model: onnx.ModelProto) -> bool:
    """Whether this machine, or ONNX's reference evaluator, can run the network in this way."""
    if variant == "native":
        return native.problem() is None
    if variant == "reference":
        # onnx's evaluator splits the kernel of a grouped ConvTranspose wrongly
        return not any(
            a.name == "group" and a.i > 1
            for node in model.graph.node
            for a in node.attribute
            if "ConvTranspose" in node.op_type
        )
    return True


@contextlib.contextmanager
def _running(variant: str) -> Iterator[None]:
    """Let the verifier open its sessions in one of the other ways."""
    options, opened = execution._options, subject.Session

    def unoptimised(*args: Any) -> Any:
        made = options(*args)
        made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return made

    def session(model: onnx.ModelProto, *args: Any, **kwargs: Any) -> so.Session:
        if variant == "flat":
            model = onnx.inliner.inline_local_functions(copy.deepcopy(model))
        threads = 2 if variant == "two threads" else 1
        return opened(model, *args, **kwargs, threads=threads)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(subject, "Session", session))
        if variant == "unoptimised":
            stack.enter_context(mock.patch.object(execution, "_options", unoptimised))
        yield


def outputs(
    session: so.Session, feed: Sequence[np.ndarray], *, chunks: bool = False, cut: bool = True
) -> list[np.ndarray]:
    """Run a session on a whole sequence; or stream it, in two chunks if it may be cut."""
    if not chunks:
        found = session.run(*feed)
        return list(found) if isinstance(found, tuple) else [found]
    layout = session.layout
    parts = [time_last(array, layout) for array in feed]
    cut = parts[0].shape[-1] // 2 if cut else 0
    stream = session.stream(parts[0].shape[0])
    pieces = []
    for begin, end in ((0, cut), (cut, None)):
        if begin != end:
            chunk = [time_first(a[..., begin:end], layout) for a in parts]
            pieces.append(stream.run(*chunk))
    pieces.append(stream.flush())
    several = len(session.outputs) > 1
    return [
        time_first(
            np.concatenate([time_last(p[i] if several else p, layout) for p in pieces], axis=-1),
            layout,
        )
        for i in range(len(session.outputs))
    ]


def _reference(
    model: onnx.ModelProto, session: so.Session, feed: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Run ONNX's reference evaluator."""
    axis = 1 if session.layout == "TNC" else 0
    feeds = dict(zip(session.inputs, feed, strict=True))
    if session.streaming:
        feeds |= session.fresh_states(feed[0].shape[axis])
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(list(session.outputs), feeds)]


def _same(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    exact: Sequence[bool],
    *,
    near: bool = True,
) -> bool:
    """Whether outputs are equal, or, where they are not exact, near if that is asked for."""
    return all(
        e.shape == f.shape
        and e.dtype == f.dtype
        and (np.array_equal(e, f) if equal else not near or _near(e, f))
        for e, f, equal in zip(expected, found, exact, strict=True)
    )


def _near(expected: np.ndarray, found: np.ndarray) -> bool:
    allowed = RTOL * np.abs(expected).max(initial=0)
    return bool((np.abs(expected - found) <= allowed).all())


def _difference(
    expected: Sequence[np.ndarray], found: Sequence[np.ndarray], exact: Sequence[bool]
) -> str:
    for i, (e, f) in enumerate(zip(expected, found, strict=True)):
        if e.shape != f.shape or e.dtype != f.dtype:
            return f"output {i}: {f.dtype} {f.shape}, not {e.dtype} {e.shape}"
        if not _same([e], [f], exact[i : i + 1]):
            place = np.argwhere(e != f)[0].tolist()
            values = f"{f[tuple(place)]} and not {e[tuple(place)]}"
            return f"output {i}: {int((e != f).sum())} differ, {place}: {values}"
    return "nothing differs"
