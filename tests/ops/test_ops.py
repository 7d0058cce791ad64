"""Every op of the registry: torch = ONNX Runtime = ONNX's reference evaluator, and its gradient.

Nothing here lists ops by hand, except where a gradient has a form of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import together
import torch
from graphs import all_nodes
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.model.options import OPSETS
from synapse_onnx.ops._neuron import per_channel
from synapse_onnx.ops.arithmetic import Pair
from synapse_onnx.ops.equation import NeuronOp

OPS = ops.all_ops()
SAMPLES = [(name, i, sample) for name, op in OPS.items() for i, sample in enumerate(op.samples())]
FIRST = [pytest.param(op, op.samples()[0], id=name) for name, op in OPS.items()]
#: a sample of each op and number of axes
RANKS = {(name, sample.args[0].dim()): (OPS[name], sample) for name, _, sample in SAMPLES[::-1]}


class Call(nn.Module):
    """An op with its first tensor as input and the others as buffers."""

    def __init__(self, op: ops.OpDef, args: tuple[Any, ...]) -> None:
        super().__init__()
        self.op, self.rest = op, tuple(a for a in args if not isinstance(a, Tensor))
        self.count = sum(isinstance(a, Tensor) for a in args)
        self.names = []
        for i, value in enumerate(args[1 : self.count]):
            self.register_buffer(f"p{i}", value)
            self.names.append(f"p{i}")

    def forward(self, x: Tensor) -> Any:
        return self.op.torch_op(x, *(getattr(self, name) for name in self.names), *self.rest)


def _has_states(op: ops.OpDef) -> bool:
    return any(output.startswith("last_") for output in op.outputs)


def _is_open(op: ops.OpDef) -> bool:
    """Whether batch and time stay open: a state in a buffer has a batch of its own."""
    return not _has_states(op)


def _refused_by_the_evaluator(op: ops.OpDef, sample: ops.Sample) -> bool:
    """onnx 1.23's evaluator splits the kernel of a grouped ConvTranspose wrongly and says so."""
    return "ConvTranspose" in op.name and sample.args[-1] > 1


def _alike(entry: tuple[str, int, ops.Sample]) -> tuple[object, ...]:
    name, _, sample = entry
    op, x = OPS[name], sample.args[0]
    sizes = (x.shape[0], x.shape[-1]) if _is_open(op) else ()  # N and T are one for all branches
    return (_is_open(op), sizes, _refused_by_the_evaluator(op, sample))


GROUPS = together.groups(SAMPLES, alike=_alike, apart=lambda entry: entry[0])
#: those of a group one after the other, for a worker that runs a part of the tests
CALLS = [
    pytest.param(
        OPS[name], sample, group, id=f"{name}-{sample.id}", marks=[pytest.mark.matrix] * (i == 0)
    )
    for group, entries in enumerate(GROUPS)
    for name, i, sample in entries
]


@cache
def exported(group: int) -> together.Together:
    """The samples of a group in one model, a branch each."""
    branches = [
        together.Branch(
            f"{name}-{sample.id}", Call(OPS[name], sample.args), (sample.args[0],),
            len(OPS[name].outputs),
        )
        for name, _, sample in GROUPS[group]
    ]  # fmt: skip
    return together.export(branches, dynamic=_is_open(OPS[GROUPS[group][0][0]]))


@cache
def ran(group: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Outputs of ONNX Runtime, by branch."""
    model = exported(group)
    return model.by_branch(so.Session(model.model).run(*model.arrays))


@cache
def evaluated(group: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Outputs of ONNX's reference evaluator, by branch."""
    model = exported(group)
    names = [value.name for value in model.model.graph.input]
    feeds = dict(zip(names, model.arrays, strict=True))
    return model.by_branch(ReferenceEvaluator(model.model).run(None, feeds))


def _is_of_an_equation(op: ops.OpDef) -> bool:
    return isinstance(getattr(op.symbolic, "__self__", None), NeuronOp)


def _is_traced(form: NeuronOp) -> bool:
    """Whether a form of an equation spikes, or is the first of its kind."""
    every: list[Any] = [op.symbolic for op in OPS.values() if _is_of_an_equation(op)]
    forms = [symbolic.__self__ for symbolic in every]
    kin = [other for other in forms if (other.e, other.kind) == (form.e, form.kind)]
    return form.kind == "spikes" or kin[0] is form


def _arrays(result: Any) -> list[np.ndarray]:
    return [np.asarray(value) for value in (result if isinstance(result, tuple) else (result,))]


def _assert_close(found: Any, expected: Any, rtol: float) -> None:
    found, expected = _arrays(found), _arrays(expected)
    assert len(found) == len(expected)
    for value, reference in zip(found, expected, strict=True):
        assert (value.shape, value.dtype) == (reference.shape, reference.dtype)
        if rtol == 0:
            np.testing.assert_array_equal(value, reference)
        else:
            assert np.abs(value - reference).max() <= rtol * np.abs(reference).max()


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_torch_accepts_the_op(op: ops.OpDef, sample: ops.Sample) -> None:
    """Schema, fake kernel and autograd registration, with gradients asked for.

    Two time steps will do: the check traces every operation of every step. That takes nearly all of
    its time, and an equation is traced alike in all regimes: one of them is, and spikes in each.
    """
    short = [
        a[..., :2] if name.startswith("x") else a
        for name, a in zip(op.inputs, sample.args, strict=False)
    ]
    args = tuple(
        a.clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
        for a in (*short, *sample.args[len(short) :])
    )
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    symbolic: Any = op.symbolic
    if not _is_of_an_equation(op) or _is_traced(symbolic.__self__):
        checks.append("test_aot_dispatch_dynamic")
    results = torch.library.opcheck(op.torch_op, args, test_utils=checks)
    assert set(results.values()) == {"SUCCESS"}
    y = op.torch_op(*args)
    first = y[0] if isinstance(y, tuple) else y
    first.sum().backward()
    assert args[0].grad is not None
    assert args[0].grad.shape == args[0].shape


@pytest.mark.parametrize(
    ("op", "sample"), [pytest.param(*RANKS[key], id=f"{key[0]}-{key[1]}d") for key in sorted(RANKS)]
)
def test_fake_tensors_have_the_shapes_of_real_ones(op: ops.OpDef, sample: ops.Sample) -> None:
    """An export sees the former alone."""
    results = []
    for mode in (contextlib.nullcontext(), FakeTensorMode()):
        fake = mode.from_tensor if isinstance(mode, FakeTensorMode) else Tensor.clone
        with mode:
            y = op.torch_op(*(fake(a) if isinstance(a, Tensor) else a for a in sample.args))
        results.append(y if isinstance(y, tuple) else (y,))
    for real, shown in zip(*results, strict=True):
        assert (shown.shape, shown.dtype) == (real.shape, real.dtype)


@pytest.mark.parametrize(("op", "sample", "group"), CALLS)
@pytest.mark.gpu
def test_torch_equals_onnx_runtime_equals_the_reference(
    op: ops.OpDef, sample: ops.Sample, group: int
) -> None:
    nodes = [n.op_type for n in exported(group).model.graph.node if n.domain == ops.DOMAIN]
    assert nodes == [name for name, _, _ in GROUPS[group]]
    expected = op.torch_op(*sample.args)
    expected = tuple(y.numpy() for y in (expected if isinstance(expected, tuple) else (expected,)))
    branch = f"{op.name}-{sample.id}"
    _assert_close(ran(group)[branch], expected, sample.rtol)
    if _refused_by_the_evaluator(op, sample):
        # once it is mended this fails, and the comparison below takes over
        with pytest.raises(ValueError, match="cannot reshape array"):
            evaluated(group)
        return
    _assert_close(evaluated(group)[branch], expected, sample.rtol)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_the_body_is_standard_and_the_same_at_every_opset(op: ops.OpDef) -> None:
    """So the tests that run a body at one opset hold for all of them."""
    first = op.function(OPSETS[0])
    assert {node.domain for node in all_nodes(first.node)} == {""}
    for opset in OPSETS:
        function = op.function(opset)
        assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", opset)]
        del function.opset_import[:]
        function.opset_import.extend(first.opset_import)
        assert function == first


#: for each of these a graph of few steps and one of many
SIZES = together.groups(OPS.values(), alike=lambda _: None, apart=lambda op: op.name, most=10)


@pytest.mark.parametrize("group", SIZES, ids=lambda group: f"{group[0].name}-{group[-1].name}")
def test_the_graph_does_not_grow_with_time(group: list[ops.OpDef]) -> None:
    counts = []
    for steps in (3, 300):
        branches = []
        for op in group:
            every = op.samples()[0].args
            args = [
                a[..., :1].repeat(*(1,) * (a.dim() - 1), steps) if name.startswith("x") else a
                for name, a in zip(op.inputs, every, strict=False)
            ]
            args += every[len(args) :]
            call = Call(op, tuple(args))
            branches.append(together.Branch(op.name, call, (args[0],), len(op.outputs)))
        model = together.export(branches, dynamic=False).model
        counts.append(
            {"graph": len(model.graph.node)} | {f.name: len(f.node) for f in model.functions}
        )
    assert counts[0] == counts[1]


def test_every_op_says_what_it_computes() -> None:
    for name, op in OPS.items():
        assert op.doc, name
        assert "=" in op.doc, f"{name} states no equation"
        assert op.function(21).doc_string == op.doc


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_an_op_says_whether_it_is_exact_and_whether_it_spikes(op: ops.OpDef) -> None:
    rounds = any(sample.rtol for sample in op.samples())
    assert (op.exact is False) == rounds
    assert op.spikes == ("graded" in op.attributes)
    # one that says nothing promises nothing
    fields = {field.name: field.default for field in dataclasses.fields(ops.OpDef)}
    assert (fields["exact"], fields["spikes"]) == (False, False)


def test_files_name_the_domain_and_its_first_version() -> None:
    model = exported(0).model
    imports = {entry.domain: entry.version for entry in model.opset_import}
    assert (ops.DOMAIN, imports[ops.DOMAIN]) == ("ai.synapse", 1)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_a_synapse_says_in_which_numbers_it_is_computed(op: ops.OpDef) -> None:
    if "weight" not in "".join(op.inputs) or op.name.startswith("Recurrent"):
        assert op.arithmetic is None or _is_of_an_equation(op)
        return
    assert op.arithmetic is not None
    weights = {
        name: onnx.numpy_helper.from_array(np.zeros((128, 2), np.int8), name)
        for name in op.inputs
        if name.startswith("weight")
    }
    said = op.arithmetic({"integers": 1, "spikes": 1}, weights, frozenset())
    if not op.name.startswith("Quantized"):
        assert said == "floats"
    elif op.name.endswith("Dense"):
        assert said == "bytes"
    else:
        assert said == "floats; there is no fast integer operator"


def test_a_name_or_torch_op_is_registered_once() -> None:
    op = OPS["Dense"]
    with pytest.raises(so.RegistryError, match=r"op Dense .* is registered twice"):
        ops.register(op)
    with pytest.raises(so.RegistryError, match="registered twice"):
        ops.register(dataclasses.replace(op, name="Other"))
    assert "Other" not in ops.all_ops()


def test_unknown_names_and_broken_bodies_are_reported() -> None:
    with pytest.raises(so.RegistryError, match="no op is named 'Dens'; there are: Adrf"):
        ops.get_op("Dens")
    broken = dataclasses.replace(OPS["Dense"], body=lambda w: w.text("y = MatMul(x"))
    with pytest.raises(so.RegistryError, match="body of op Dense does not parse"):
        broken.function(21)


# -- gradients ---------------------------------------------------------------------------------

#: their gradient is no derivative: a surrogate, or one that leaves rounding and resets out
SURROGATES = {"Delta", "LeakyIntegrator", "Spike"}
SMOOTH = [
    pytest.param(op, sample, id=f"{name}-{sample.id}")
    for name, op in OPS.items()
    if not name.startswith("Quantized") and name not in SURROGATES and not _is_of_an_equation(op)
    for sample in op.samples()
    # gradcheck runs the op twice an element, and its small steps are lost in large numbers
    if sample.args[0].numel() < 700 and sample.id != "large"
]


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_gradients_are_derivatives(op: ops.OpDef, sample: ops.Sample) -> None:
    args = [
        a.double().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
        for a in sample.args
    ]
    assert torch.autograd.gradcheck(op.torch_op, args, fast_mode=True)


@pytest.mark.parametrize(
    "op", [op for name, op in OPS.items() if name.startswith("Quantized")], ids=lambda op: op.name
)
def test_gradients_of_quantised_synapses_are_those_of_their_weights(op: ops.OpDef) -> None:
    plain = OPS[op.name.removeprefix("Quantized")]
    weights = [i for i, name in enumerate(op.inputs) if re.fullmatch("weight(_real|_imag)?", name)]
    steps = [i for i, name in enumerate(op.inputs) if name.startswith("weight_scale")]
    sample = next(s for s in op.samples() if s.id.endswith("-tensor"))
    floats = [sample.args[w] * sample.args[s] for w, s in zip(weights, steps, strict=True)]
    grads = []
    for torch_op, middle in (
        (op.torch_op, sample.args[1 : 1 + 2 * len(weights)]),
        (plain.torch_op, floats),
    ):
        x = sample.args[0].double().requires_grad_()
        y = torch_op(x, *middle, *sample.args[len(op.inputs) :])
        loss = sum((part.sin().sum() for part in (y if isinstance(y, tuple) else (y,))), 0)
        grads.append(torch.autograd.grad(loss, x)[0])
    torch.testing.assert_close(grads[0], grads[1])


def test_gradients_of_the_float_neurons_states_below_threshold() -> None:
    op = OPS["CubaFloat"]
    *tensors, _, tau, scale, graded = op.samples()[1].args
    args = [tensor.double().requires_grad_() for tensor in tensors]

    def states(*args: Tensor) -> tuple[Tensor, ...]:
        return op.torch_op(*args, 1e9, tau, scale, graded)[1:]

    assert torch.autograd.gradcheck(states, args)


def test_the_fixed_point_integrator_has_the_gradient_of_its_equation() -> None:
    """Rounding apart, it is the float integrator without the reset's path."""
    x = torch.randn(2, 3, 30, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(-1, 1, 30)
    grads = []
    for fixed in (True, False):
        x_, decay = x.clone().requires_grad_(), torch.tensor([200.0, 900.0, 4000.0])
        decay.requires_grad_()
        if fixed:
            state = torch.full((2, 3), 1000)
            y, _ = torch.ops.synapse.leaky_integrator(x_, decay, state, 4096, (1 << 63) - 1)
        else:
            state = torch.full((2, 3), 1000 / 4096)
            y, _ = torch.ops.synapse.leaky_integrator_float(x_, decay / 4096, state, float("inf"))
        grads.append(torch.autograd.grad((y * weight).sum(), (x_, decay)))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 20), (1, 3, 2, 2, 12)], ids=["neurons", "images"])
@pytest.mark.parametrize("channels", [False, True], ids=["shared", "channels"])
def test_resets_have_no_gradient_of_their_own(channels: bool, shape: tuple[int, ...]) -> None:
    """In fixed point what is reset counts as constant, and the state's path as if none were."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(-24, 40, shape, generator=draw) / 32
    weight, last = torch.randn(shape, generator=draw), torch.zeros(shape[:-1])
    start = torch.randint(-4096, 4096, shape[:-1], generator=draw)
    decay = torch.tensor([500.0, 1000.0, 2000.0] if channels else [800.0])
    found = [x.clone().requires_grad_(), decay.clone().requires_grad_()]
    y, _ = torch.ops.synapse.leaky_integrator(*found, start, 4096, 3000)
    assert 0 < (y >= 3000 / 4096).sum() < y.numel()
    (y * weight).sum().backward()
    plain = [x.clone().requires_grad_(), decay.clone().requires_grad_()]
    keep = (1 - plain[1] / 4096).reshape(-1, *(1,) * (len(shape) - 3))
    state = straight = start / 4096
    total = torch.zeros(())
    for t in range(shape[-1]):
        before = straight + (state - straight).detach() if t else state
        straight = before * keep + plain[0][..., t]
        value = y[..., t].detach()  # with its rounding
        straight = straight + (value - straight).detach()
        state = torch.where(value < 3000 / 4096, value, last)
        total = total + (straight * weight[..., t]).sum()
    total.backward()
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("cumulative", [False, True], ids=["changes", "cumulative"])
@pytest.mark.parametrize("channels", [False, True], ids=["shared", "channels"])
def test_the_gradient_of_the_delta_encoder_is_slayers(channels: bool, cumulative: bool) -> None:
    """What is sent follows the input straight; the threshold has a surrogate."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randint(-24, 40, (2, 3, 12), generator=draw) / 32
    weight, tau, gradient = torch.randn(2, 3, 12, generator=draw), 0.7, 1.3
    states = [torch.randint(-24, 40, (2, 3), generator=draw) / 32 for _ in range(3)]
    threshold = torch.tensor([0.5, 0.7, 0.9] if channels else [0.6])
    leaves = [value.clone().requires_grad_() for value in (x, threshold, states[0])]
    args = (leaves[0], leaves[1], leaves[2], states[1], states[2], 64, cumulative, tau, gradient)
    (torch.ops.synapse.delta(*args)[0] * weight).sum().backward()
    grad_x, grad_level = np.zeros((2, 3, 12)), np.zeros(3)
    crossed = 0
    for n, c in np.ndindex(2, 3):
        level = float(threshold.expand(3)[c])
        pre, rest, error = (float(state[n, c]) for state in states)
        for t in range(12):
            g, change = float(weight[n, c, t]), float(x[n, c, t]) - pre + rest
            error += change
            sends = abs(error if cumulative else change) >= level
            error = 0.0 if sends and change else error
            pre, rest = float(x[n, c, t]), 0.0 if sends else change
            grad_x[n, c, t] += g
            if t:
                grad_x[n, c, t - 1] -= g
            above = abs(change) - level
            crossed += above > 0
            slope = -change * gradient * np.exp(-abs(above) / tau) / level
            grad_level[c] += g * (slope if above > 0 else -np.sign(change))
    assert 0 < crossed < x.numel()
    np.testing.assert_allclose(leaves[0].grad, grad_x, rtol=1e-5, atol=1e-5)
    expected = grad_level if channels else [grad_level.sum()]
    np.testing.assert_allclose(leaves[1].grad, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(leaves[2].grad, -weight[..., 0])


@pytest.mark.parametrize("graded", [False, True])
def test_the_surrogate_gradient_is_slayers(graded: bool) -> None:
    v = torch.linspace(-2, 3, 41).reshape(1, 1, 41).requires_grad_()
    threshold, tau, scale = 0.5, 0.7, 1.3
    torch.ops.synapse.spike(v, threshold, tau, scale, graded).sum().backward()
    distance = v.detach() - threshold
    expected = scale / 2 / tau * torch.exp(-distance.abs() / tau)
    if graded:
        expected = scale * torch.exp(torch.clamp(distance, max=0) / tau)
    torch.testing.assert_close(v.grad, expected)


def test_pairs_compute_with_the_integer_and_the_real_number_alike() -> None:
    def pair(value: int, real: float) -> Pair:
        return Pair(torch.tensor([value]), torch.tensor([real]), 64)

    one, other = pair(12, 0.3), pair(5, 0.1)
    for found, value, real in (
        (one + other, 17, 0.4), (one - other, 7, 0.2), (one * 3, 36, 0.9), (3 * one, 36, 0.9),
        (one + 64, 76, 1.3), (64 + one, 76, 1.3), (one - 64, -52, -0.7), (64 - one, 52, 0.7),
    ):  # fmt: skip
        assert int(found.value) == value
        assert float(found.real) == pytest.approx(real)
        assert found.scale == 64
    assert [bool(one >= 12), bool(one >= 13), bool(one < 12), bool(one < 13)] == [
        True, False, False, True,
    ]  # fmt: skip
    exact = one.exact()
    assert (int(exact.value), float(exact.real)) == (12, 12 / 64)


def test_a_parameter_is_shared_or_one_a_channel_or_one_a_neuron() -> None:
    for state in ((2, 3), (2, 3, 4, 5)):
        ends = (1,) * (len(state) - 2)
        assert per_channel(torch.ones(1), torch.zeros(state)).shape == (1, *ends)
        assert per_channel(torch.ones(3), torch.zeros(state)).shape == (3, *ends)
    each = torch.rand(3, 4, 5)
    assert torch.equal(per_channel(each, torch.zeros(2, 3, 4, 5)), each)


TWINS = [
    pytest.param(op.symbolic.__self__, id=name)  # type: ignore[attr-defined]
    for name, op in OPS.items()
    if _is_of_an_equation(op) and op.symbolic.__self__.fixed  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("form", TWINS)
def test_the_gradient_in_fixed_point_is_that_in_floats(form: NeuronOp) -> None:
    """Below a threshold that nothing reaches; a gradient goes straight through a rounding."""
    twin, scale, high = form.e.op(form.kind, "float"), 4096, 1 << 20
    (args,) = (sample.args for sample in form.samples() if sample.id == "channels")
    given = dict(zip((*form.inputs, *form.tail), args, strict=True))
    given["threshold"] = high if "threshold" not in form.states else given["threshold"]
    floats: dict[str, Any] = {}
    for state in form.e.states:
        if state.start:
            given[state.name] = given[state.name] + high
        floats[state.name] = given[state.name] / scale
    for name in form.e.constants:
        given[name] = high if name.endswith("threshold") else given[name]
        floats[name] = given[name] / scale
    for parameter in form.table:
        if parameter not in twin.table:  # Loihi's bias, a norm: such as change nothing
            neutral = 1 if parameter.name == "gain" else 0
            given[parameter.name] = torch.full_like(given[parameter.name], neutral)
        value = given[parameter.name]
        floats[parameter.name] = value if parameter.level else value / 4096
    leaves = [*form.e.currents, *(p.name for p in twin.table)]
    found = []
    for side, numbers in ((form, given), (twin, given | floats)):
        values = numbers | {n: numbers[n].clone().requires_grad_() for n in leaves}
        outputs = side(*(values[n] for n in (*side.inputs, *side.tail)))[: len(side.sequences)]
        draw = torch.Generator().manual_seed(0)
        loss = sum(((y * torch.randn(y.shape, generator=draw)).sum() for y in outputs), 0)
        found.append(torch.autograd.grad(loss, [values[n] for n in leaves], allow_unused=True))
    for name, fixed, plain in zip(leaves, *found, strict=True):
        if plain is None or float(plain.abs().max()) == 0:
            assert fixed is None or float(fixed.abs().max()) == 0, name
            continue
        level = name in form.e.currents or next(p for p in twin.table if p.name == name).level
        unit = 1 if level else 4096
        assert float((unit * fixed - plain).abs().max()) <= 0.02 * float(plain.abs().max()), name


ROUNDED = [
    twin
    for twin in TWINS
    if (form := twin.values[0]).kind == "spikes" and form.regime in ("slayer", "loihi")  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("rounding", [0.0, 0.05, 0.8, 100.0])
@pytest.mark.parametrize("form", ROUNDED)
def test_what_roundings_of_currents_can_change_is_bounded(form: NeuronOp, rounding: float) -> None:
    """Currents moved at random: spikes part where they are undecided, and states no further."""
    (args,) = (sample.args for sample in form.samples() if sample.id == "channels")
    given = dict(zip((*form.inputs, *form.tail), args, strict=True)) | {"graded": True}
    currents, scale = form.e.currents, given["scale"]
    draw = torch.Generator().manual_seed(0)
    given |= {name: torch.randn(4, 3, 60, generator=draw) * 0.4 for name in currents}
    given |= {name: given[name][:1].expand(4, 3).contiguous() for name in form.states}
    near, height, off = form.error_bound(*given.values(), rounding=rounding)
    wanted, *states = form(*given.values())
    assert 0 < int((wanted != 0).sum()) < wanted.numel()
    if not rounding:
        assert not any(bool(x.any()) for x in (near, height, *off.values()))
    moved = parted = 0
    for _ in range(20):
        # at the ends of what roundings reach more often than in between
        noise = [
            (4 * torch.rand(4, 3, 60, generator=draw) - 2).clamp(-0.99, 0.99) for _ in currents
        ]
        pairs = zip(currents, noise, strict=True)
        other = given | {n: (given[n].double() + x * rounding / scale).float() for n, x in pairs}
        spikes, *last = form(*other.values())
        flipped = (spikes != 0) != (wanted != 0)
        first = flipped & (flipped.cumsum(dim=-1) == 1)
        assert bool(near[first].all())
        same = flipped.cumsum(dim=-1) == 0
        difference = (spikes - wanted).abs() * scale
        assert bool((difference <= height)[same].all())
        for name, one, another in zip(form.states, states, last, strict=True):
            assert bool(((one - another).abs() <= off[name])[same[..., -1]].all()), name
        moved += int((difference > 0)[same].sum())
        parted += int(first.sum())
    assert (moved > 0) == (rounding > 0)
    assert parted or rounding < 100


def test_equations_say_in_which_numbers_they_are_computed() -> None:
    for name, op in OPS.items():
        if not _is_of_an_equation(op):
            continue
        form: NeuronOp = op.symbolic.__self__  # type: ignore[attr-defined]
        attributes = dict.fromkeys(op.attributes, 1)
        bits = "64 bits" if form.kind == "recurrent" else "32 bits"
        said = form.arithmetic(attributes, {}, form.omits(attributes, {}))
        assert said.startswith(bits if form.fixed else "floats"), name


def test_a_unit_of_a_current_stays_until_the_voltage_is_reset() -> None:
    x = torch.tensor([8.0, 0.5, 0.0, 3000.5, 0.5, 16.0]).reshape(1, 1, -1) / 4096
    zero = torch.zeros(1, 1, dtype=torch.int64)
    decays = torch.tensor([4096.0]), torch.tensor([0.0])  # no current, all of the voltage is kept
    args = (x, *decays, zero, zero, 4096, 3000, 1.0, 1.0, True)
    form: Any = ops.get_op("Cuba").symbolic
    near, height, off = form.__self__.error_bound(*args, rounding=0.1)
    assert height.flatten().tolist() == [1, 1, 1, 1, 0, 1]
    assert not bool(near.any())
    assert {name: float(value) for name, value in off.items()} == {"current": 1, "voltage": 1}
    # a voltage at its threshold, or a unit below, is decided by that unit
    for level, again in ((3008, False), (3009, True)):
        near, _, _ = form.__self__.error_bound(*args[:6], level, *args[7:], rounding=0.1)
        assert near.flatten().tolist() == [False, False, False, True, again, False]


@pytest.mark.parametrize("graded", [False, True])
def test_the_surrogate_gradient_of_a_phase_is_slayers(graded: bool) -> None:
    draw = torch.Generator().manual_seed(3)
    real, imag = (torch.randn(2, 3, 1, generator=draw).requires_grad_() for _ in range(2))
    limit, tau, scale = 0.25, 0.7, 1.3
    op = OPS["RfFloat"]
    decays, states = [torch.tensor([0.5])] * 2, [torch.zeros(2, 3)] * (len(op.inputs) - 4)
    op.torch_op(real, imag, *decays, *states, limit, tau, scale, graded)[0].sum().backward()
    x, y = real.detach(), imag.detach()
    above = x - limit
    near_y = torch.exp(-y.abs() / tau) / 2 / tau
    near_x = torch.exp(-above.abs() / tau) / 2 / tau
    if graded:
        near_x = torch.exp(torch.minimum(above, torch.zeros(())) / tau)
    step = 0.5 * (1 + torch.sign(above) * (1 - 2 * tau * near_x))
    torch.testing.assert_close(real.grad, scale * near_x * near_y)
    torch.testing.assert_close(imag.grad, -scale * torch.sign(y) / tau * near_y * step)
    assert (above > 0).any()
    assert (above < 0).any()


@pytest.mark.parametrize("name", ["Alif", "Adrf"])
def test_a_threshold_has_the_opposite_gradient_of_its_voltage(name: str) -> None:
    """What adapts is taken off what reaches it, so every part has the surrogate's slope."""
    op, dynamics = OPS[f"{name}Float"], OPS[f"{name}DynamicsFloat"]
    args = op.samples()[1].args
    tensors, rest = args[: len(op.inputs)], args[len(op.inputs) :]
    first = [
        t[..., :1] if n in ("x", "x_real", "x_imag") else t
        for n, t in zip(op.inputs, tensors, strict=True)
    ]
    leaves = [t.clone().requires_grad_() for t in first]
    limits = [n for n in op.inputs if n in ("threshold", "refractory")]
    assert len(limits) == 2
    s = op.torch_op(*leaves, *rest)[0]
    wanted = [leaves[op.inputs.index(n)] for n in limits]
    found = torch.autograd.grad(s.sum(), wanted)
    traces = dynamics.torch_op(*leaves, *rest[: len(dynamics.attributes)])
    membrane = dict(zip(dynamics.outputs, traces, strict=True))
    # d s / d limit is minus d s / d membrane, which a current alone moves by one
    current = leaves[0]
    slope = torch.autograd.grad(op.torch_op(*leaves, *rest)[0].sum(), current)[0]
    for name_, gradient in zip(limits, found, strict=True):
        part = membrane[f"{name_}_trace"]
        leaf = leaves[op.inputs.index(name_)]
        moved = torch.autograd.grad((part * slope).sum(), leaf, retain_graph=True)[0]
        torch.testing.assert_close(gradient, -moved)


@pytest.mark.parametrize("name", ["Cuba", "CubaFloat"])
def test_the_fused_neuron_has_the_gradient_of_the_composed_one(name: str) -> None:
    neuron = so.neuron.cuba.Neuron(
        0.5, 0.25, 0.05, requires_grad=True, regime="slayer" if name == "Cuba" else "float"
    )
    x = torch.randn(2, 3, 25, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(-1, 1, 25)
    grads = []
    for training in (True, False):
        neuron.train(training)
        leaf = x.clone().requires_grad_()
        loss = (neuron(leaf) * weight).sum()
        grads.append(torch.autograd.grad(loss, (leaf, neuron.current_decay, neuron.voltage_decay)))
    for composed, fused in zip(*grads, strict=True):
        assert float(composed.abs().sum()) > 0
        torch.testing.assert_close(composed, fused)
