"""The public function ``verify``: torch against ONNX Runtime, output by output, layer by layer."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.exactness import exact_values
from synapse_onnx.compiler.freezer import deployables, uncompiled
from synapse_onnx.compiler.steps.instants import looped_as_in_file
from synapse_onnx.errors import InputError
from synapse_onnx.model.file import load_model
from synapse_onnx.model.layout import has_time, time_last
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.neuron import base
from synapse_onnx.ops import LoopRun, loops_seen
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT
from synapse_onnx.report.result import Report
from synapse_onnx.runtime.session import Session
from synapse_onnx.verification.arrays import RTOL, Agreement, Tolerance, largest
from synapse_onnx.verification.chunks import compare_chunks
from synapse_onnx.verification.construction import compare_construction
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.layers import compare_layer
from synapse_onnx.verification.membranes import variables
from synapse_onnx.verification.outputs import Run, compare_outputs
from synapse_onnx.verification.probes import probe_layers
from synapse_onnx.verification.reference import Reference, as_module, check_repeatable
from synapse_onnx.verification.replay import with_feedback
from synapse_onnx.verification.rounded import end_where_roundings_decide
from synapse_onnx.verification.scans import compare_scans, remember_scales
from synapse_onnx.verification.structure import compare_structure
from synapse_onnx.verification.subject import Subject, provenance
from synapse_onnx.verification.sums import exact_layers
from synapse_onnx.verification.trace import Call, run_session, run_torch

__all__ = ["verify"]


def verify(
    module: Callable[..., Any],
    model_or_path: onnx.ModelProto | str | os.PathLike[str],
    inputs: Tensor | Sequence[Any],
    *,
    rtol: float = RTOL,
    atol: float = 0.0,
    outputs: Sequence[str] | None = None,
    providers: Sequence[str] | None = None,
    native: bool | None = None,
) -> Report:
    """Compare a torch network with its exported model in ONNX Runtime.

    The network runs in evaluation mode on a copy, unfrozen. Besides the inputs as given, other
    batch sizes and lengths are run: the first sample with 7 steps more, one step of one sample
    more, 7 steps of two samples. Then each layer is run alone on generated inputs.

    Args:
        module: the network that was exported; or any other reference, which is called with the
            inputs: a module of another framework, or a function. Of that the outputs are compared,
            by position and shape; the file is then judged by the run alone. A module runs on a
            fresh copy each time.
        model_or_path: the exported model.
        inputs: one tensor (N, C[, H, W], T), or one for every argument of ``forward``; a pair
            (real, imag) for a complex one.
        rtol: tolerance where equality cannot be demanded, relative to the largest value in torch;
            for a sum, to the largest sum of magnitudes, ``max(sum |w| |x|)``.
        atol: absolute tolerance, added to it.
        outputs: names of the model's outputs to compare; all by default. Of others nothing is
            demanded, nor of layers and parameters that serve them alone; the report names them.
        providers: execution providers of ONNX Runtime; the CPU by default.
        native: whether native kernels run the model, as in :class:`Session`. By default they do
            where they are installed, and its outputs are compared without them, too.

    Returns:
        A report: ``ok``, ``first_divergence``, a row for each layer and output, ...

    Raises:
        InputError: the inputs are no tensors, or hold NaN or infinite values, or a tolerance is
            negative or not finite, or ``outputs`` names no output of the model, or a reference
            raises an error or gives other outputs when it is called again.
        ModelError: the model cannot be run.
        ShapeError: the inputs do not fit the network.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
            raise InputError(f"verify: {name} must be a finite number >= 0, got {value!r}")
    model = (
        model_or_path if isinstance(model_or_path, onnx.ModelProto) else load_model(model_or_path)
    )
    metadata = Metadata.find(model)
    module = uncompiled(as_module(module, metadata))
    arguments = Arguments.of(module, inputs, "verify")
    if metadata is not None and metadata.steps and not isinstance(module, Reference):
        module, arguments = looped_as_in_file(module, arguments, metadata.axes)
    arguments.check(module, "verify")
    for i, tensor in enumerate(arguments.tensors):
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"verify: input {i} has NaN or infinite values")
    subject = Subject(module, model, arguments, outputs=outputs, providers=providers, native=native)
    arguments = subject.arguments  # with time as the last axis
    if subject.reference is not None:
        check_repeatable(subject.reference, arguments.grouped(arguments.tensors))
    findings = Findings()
    compare_structure(subject, findings)
    compare_construction(subject, findings)
    variants = _variants(subject, arguments.tensors)
    runs = []
    for i, tensors in enumerate(variants):
        calls = _compare_run(subject, findings, tensors, Tolerance(rtol, atol), cut=i > 0)
        if calls is not None:
            runs.append((tensors, calls))
    if not findings.failures():
        probe_layers(subject, findings, runs, Tolerance(rtol, atol))
    return findings.report(
        shapes=[tuple(tuple(tensor.shape) for tensor in tensors) for tensors, _ in runs],
        facts=provenance(model_or_path, subject.session),
        branches=findings.exercise.branches(subject.whole),
        left_out=subject.left_out,
        layers_left_out=[path for path in subject.layers if subject.spares_layer(path)],
    )


def _variants(subject: Subject, tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Return the inputs as given, and of other batch sizes and lengths where those are open.

    What goes beyond the samples begins with them anew.
    """
    batch = tensors[0].shape[0] if tensors[0].dim() else 1
    lengths = {x.shape[-1] for x in tensors if has_time(x.dim())}
    steps = max(lengths, default=1)
    sizes = [(batch, steps), (1, steps + 7), (batch + 1, 1), (2, 7)]
    if not subject.has_open_batch:
        sizes = [(batch, t) for _, t in sizes]
    if subject.has_fixed_length or len(lengths) != 1:
        sizes = [(n, steps) for n, _ in sizes]
    variants = [tuple(tensors)]
    for n, t in dict.fromkeys(sizes[1:]):
        if (n, t) != (batch, steps):
            variants.append(tuple(_resized(x, n, batch, t, steps) for x in tensors))
    return variants


def _resized(x: Tensor, samples: int, given: int, steps: int, length: int) -> Tensor:
    """Return an input with other numbers of samples and of steps than are given."""
    if samples != given:
        x = x[torch.arange(samples) % given]
    if steps != length and has_time(x.dim()):
        x = x[..., torch.arange(steps) % length]
    return x


def _compare_run(
    subject: Subject,
    findings: Findings,
    tensors: Sequence[Tensor],
    tolerance: Tolerance,
    *,
    cut: bool,
) -> Sequence[Call] | None:
    """Compare one run: every layer in the order in which it ran, then the outputs, then chunks.

    A network or a reference may not take inputs that are ``cut``: ``y[..., 1]`` of one step, or
    ``topk(3)`` of one sample. What the model does with them is not demanded. Returns the calls of
    layers, or None if the run was not compared.
    """
    try:
        with loops_seen() as loops:
            expected, calls = run_torch(subject.module, subject.layers, subject.arguments, tensors)
        if subject.original is not None:
            # a copy: what a call leaves behind, such as sinabs' states of so many samples
            fresh = copied_value(subject.original)
            beside = dict(deployables(fresh))  # layers that stand beside its loop
            expected, others = run_torch(fresh, beside, subject.arguments, tensors)
            kinds = {path: str(layer.describe()["kind"]) for path, layer in beside.items()}
            findings.exercise.see_layers(others, kinds)
    except Exception as error:  # of any class: forward() is the user's code
        if not cut:
            raise
        shapes = " and ".join(str(tuple(x.shape)) for x in tensors)
        reason = str(error)
        if subject.reference is None:
            line = reason.strip().partition("\n")[0]
            reason = f"the network raises {type(error).__name__}: {line}"
        findings.note(f"inputs of shape {shapes} are not compared: {reason}")
        return None
    calls = _used_calls(subject, findings, calls, tensors)
    _see_exercise(subject, findings, tensors, calls, expected)
    if not cut:
        _see_states(findings, calls)
    exact = exact_values(subject.whole, exact_layers(subject, findings, calls))
    passed = (y.numpy() for call in calls for y in (*call.inputs, *call.outputs))
    tolerance.largest_value = max(map(largest, passed), default=0.0)
    run = Run(subject, findings, tensors, exact, tolerance)
    if tensors[0].dim():
        lengths = [x.shape[-1] for x in tensors if has_time(x.dim())]
        run.agreement = Agreement(tensors[0].shape[0], max(lengths, default=1))
    remember_scales(run, loops, expected)
    _compare_layers(run, calls, loops)
    results = _run_model(run, subject.session)
    if results is not None:
        results = [time_last(y, subject.session.layout) for y in results]
        end_where_roundings_decide(run, expected, results)
        compare_outputs(run, expected, results)
        if subject.session.streaming:
            # torch in chunks takes as long as all the rest of a run, and cut inputs show no more
            compare_chunks(run, expected, results, follow=not cut)
    bodies = _run_model(run, subject.portable) if subject.portable is not None else None
    if bodies is not None and subject.portable is not None:
        values = dict(zip(subject.portable.outputs, bodies, strict=True))
        findings.exercise.see_branches(subject.whole, values, probed=False)
        bodies = [
            time_last(values[name], subject.session.layout) for name in subject.session.outputs
        ]
        end_where_roundings_decide(run, expected, bodies)
        compare_outputs(run, expected, bodies, kind="portable")
    return calls


def _see_exercise(
    subject: Subject,
    findings: Findings,
    tensors: Sequence[Tensor],
    calls: Sequence[Call],
    expected: Sequence[Tensor],
) -> None:
    """Take note of what a run exercises, of all that is compared."""
    compared = {
        path: str(facts["kind"])
        for path, facts in subject.descriptions.items()
        if not subject.spares_layer(path)
    }
    findings.exercise.see_inputs(subject.session.inputs, tensors)
    findings.exercise.see_layers(calls, compared)
    for name, tensor in zip(subject.session.outputs, expected, strict=False):
        if subject.has_output(name):
            findings.exercise.see_output(name, tensor)


def _see_states(findings: Findings, calls: Sequence[Call]) -> None:
    """Take note of how large the states of neurons in fixed point become."""
    for call in calls:
        layer = call.layer
        if isinstance(layer, base.Neuron) and layer.regime != "float":
            with torch.no_grad():
                currents, _ = with_feedback(layer, call.inputs, call.outputs[0])
            bound = STATE_LIMIT / layer.s_scale
            findings.exercise.see_states(call.path, variables(layer, currents), bound)


def _used_calls(
    subject: Subject, findings: Findings, calls: Sequence[Call], tensors: Sequence[Tensor]
) -> list[Call]:
    """Return the calls of layers without those whose results are not used; a note names these."""
    left = subject.called(calls, tensors)
    missing = Counter(call.path for call in calls)
    missing.subtract(call.path for call in left)
    for path in +missing:
        findings.note(
            f"{path}: no output depends on {missing[path]} of its calls, so the model has no node "
            f"of them and they are not compared"
        )
    return left


def _run_model(run: Run, session: Session) -> list[NDArray[Any]] | None:
    """Return the model's outputs; None where it refuses the shapes, or ONNX Runtime fails."""
    try:
        return run_session(session, run.tensors)
    except ValueError as error:
        run.findings.problem(str(error))
        return None


def _compare_layers(run: Run, calls: Sequence[Call], loops: Sequence[LoopRun]) -> None:
    """Compare the layers, and find until when trajectories agree; then the loops."""
    traced = _run_model(run, run.subject.traced) if calls or loops else None
    if traced is None:
        return
    values = dict(zip(run.subject.traced.outputs, traced, strict=True))
    run.findings.exercise.see_branches(run.subject.whole, values, probed=False)
    compare_scans(run, loops, values)
    if not calls:
        return
    values = {
        # inputs may be bytes in the graph, which a layer takes as floats in torch
        name: array.astype(np.float32) if array.dtype == np.uint8 else array
        for name, array in values.items()
    }
    sequences = [x for call in calls for x in call.inputs if has_time(x.dim())]
    steps = max((x.shape[-1] for x in sequences), default=1)
    run.agreement = Agreement(calls[0].outputs[0].shape[0], steps)
    totals = Counter(call.path for call in calls)
    for call in calls:
        compare_layer(run, values, call, totals[call.path])
