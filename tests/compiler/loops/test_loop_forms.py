"""The form that traces have in common: unrolled again it gives their very terms."""

from __future__ import annotations

import pytest
import torch
from loop_forms import OTHER, SIZES, Function, Run, families_of, form_of, reading_of
from torch import Tensor

from synapse_onnx.compiler.loops.form import Apply, Entry, Form, Last, Stack, references_of
from synapse_onnx.compiler.loops.groups import grouped
from synapse_onnx.compiler.loops.refusals import NoLoopError
from synapse_onnx.compiler.loops.retime import retime
from synapse_onnx.compiler.loops.terms import Pool, Size
from synapse_onnx.compiler.loops.unroll import unrolled

aten = torch.ops.aten


def _plain(net: Function, x: Tensor) -> Tensor:
    v, out = torch.zeros(x.shape[1], 3), []
    for x_t in x:
        v = 0.5 * v + net.fc(x_t)
        k = (v > 1).float()
        v = v - k
        out.append(k)
    return torch.stack(out)


def _number_as_state(net: Function, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for x_t in x:
        v = v * net.decay + x_t
        out.append(v)
    return torch.stack(out)


def _none_as_state(net: Function, x: Tensor) -> Tensor:
    v, out = None, []
    for x_t in x:
        v = x_t if v is None else v * net.decay + x_t
        out.append(v)
    return torch.stack(out)


def _last(net: Function, x: Tensor) -> Tensor:
    v = torch.zeros(x.shape[1], 3)
    for x_t in x:
        v = v * net.decay + x_t
    return net.fc(v)


def _two_before(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[t] + x[t - 2] if t >= 2 else x[t] for t in range(len(x))])


def _sum(net: Function, x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[1], 3)
    for t in range(len(x)):
        total = total + x[t] * (t + 0.5) / x.shape[1]
    return total / len(x)


def _delayed(net: Function, x: Tensor) -> Tensor:
    line, out = [torch.zeros(x.shape[1], 3)] * 3, []
    for x_t in x:
        k = (x_t + net.fc(line[0])).relu()
        line = [*line[1:], k]
        out.append(k)
    return torch.stack(out)


def _joined(net: Function, x: Tensor) -> Tensor:
    h, out = torch.zeros(x.shape[1], 3), []
    for x_t in x:
        h = torch.cat([x_t, h], -1)[:, 1:4].tanh()
        out.append(h)
    return torch.stack(out, 1)


def _from_the_second(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[t] - x[t - 1] for t in range(1, len(x))])


def _folded(net: Function, x: Tensor) -> Tensor:
    y = net.fc(x.flatten(0, 1)).view(x.shape[0], x.shape[1], 3)
    v, out = 0.0, []
    for t in range(x.shape[0]):
        v = 0.5 * v + y[t]
        out.append(v)
    return torch.stack(out).mean(0) / x.shape[1]


def _strides(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[t] for t in range(0, len(x), 2)])


def _kept(net: Function, x: Tensor) -> Tensor:
    v, out = torch.zeros(x.shape[1], 3), []
    for t in range(len(x)):
        if t % 2 == 0:
            v = v * net.decay + x[t]
        out.append(v)
    return torch.stack(out)


RIGHT: dict[str, Run] = {
    run.__name__[1:]: run
    for run in (
        _plain, _number_as_state, _none_as_state, _last, _two_before, _sum, _delayed, _joined,
        _from_the_second, _folded, _strides, _kept,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def forms() -> dict[str, tuple[Form, Pool]]:
    """Forms of the functions; no test changes one."""
    return {}


def _form(forms: dict[str, tuple[Form, Pool]], name: str) -> tuple[Form, Pool]:
    if name not in forms:
        forms[name] = form_of(RIGHT[name])
    return forms[name]


@pytest.mark.parametrize("name", RIGHT)
def test_a_form_unrolled_is_the_trace(forms: dict[str, tuple[Form, Pool]], name: str) -> None:
    form, pool = _form(forms, name)
    for size in (*SIZES, OTHER):
        expected = reading_of(RIGHT[name], size, pool).outputs
        (found,) = unrolled(form, size, pool)
        assert found is expected[0], size


@pytest.mark.parametrize("name", RIGHT)
def test_a_retimed_form_unrolled_is_the_trace(name: str) -> None:
    form, pool = form_of(RIGHT[name])
    retime(form)
    for size in (SIZES[0], OTHER):
        (found,) = unrolled(form, size, pool)
        assert found is reading_of(RIGHT[name], size, pool).outputs[0], size


def test_families_of_a_neuron(forms: dict[str, tuple[Form, Pool]]) -> None:
    form, _ = _form(forms, "plain")
    (output,) = form.outputs
    assert isinstance(output, Stack)
    assert (output.axis, output.joined, output.start) == (0, False, 0)
    families = families_of(form)
    ops = sorted(str(f.node.op) for f in families if isinstance(f.node, Apply))
    assert ops == [
        "aten._to_copy.default", "aten.add.Tensor", "aten.gt.Scalar", "aten.linear.default",
        "aten.mul.Tensor", "aten.sub.Tensor",
    ]  # fmt: skip
    assert sum(isinstance(family.node, Entry) for family in families) == 1
    delays = [(ref.delay, sorted(ref.instead)) for ref in references_of(form.outputs) if ref.delay]
    assert delays == [(1, [0])]


def test_a_last_value_is_of_a_family(forms: dict[str, tuple[Form, Pool]]) -> None:
    form, _ = _form(forms, "last")
    (output,) = form.outputs
    assert isinstance(output, Apply)
    assert isinstance(output.args[0], Last)


# -- groups ----------------------------------------------------------------------------------------


def test_a_loop_is_the_recurrence_alone(forms: dict[str, tuple[Form, Pool]]) -> None:
    form, _ = _form(forms, "plain")
    groups = set(grouped(form).values())
    (loop,) = [group for group in groups if group.recurrent]
    names = {str(family.node.op) for family in loop.families}
    assert "aten.linear.default" not in names
    assert "aten.add.Tensor" in names
    outside = [group for group in groups if not group.recurrent]
    assert all(len(group.families) == 1 for group in outside)
    computed = set()
    for family in loop.families:  # each after those of its step that it reads
        for slot in family.slots():
            inner = getattr(slot, "family", None)
            if inner is not None and not slot.delay and inner.found() in loop.families:
                assert inner.found() in computed
        computed.add(family)


def test_a_delay_without_feedback_is_no_loop(forms: dict[str, tuple[Form, Pool]]) -> None:
    form, _ = _form(forms, "two_before")
    assert not any(group.recurrent for group in grouped(form).values())


def test_only_what_is_read_leaves_a_loop(forms: dict[str, tuple[Form, Pool]]) -> None:
    form, _ = _form(forms, "number_as_state")
    (loop,) = {group for group in grouped(form).values() if group.recurrent}
    assert [family.node.op for family in loop.outputs] == [aten.add.Tensor]


# -- retiming --------------------------------------------------------------------------------------


def test_retiming_moves_delays_to_what_a_product_reads() -> None:
    """A product of the step before is read; afterwards v and k of the step before are."""

    def run(net: Function, x: Tensor) -> Tensor:
        v, k, out = torch.zeros(x.shape[1], 3), torch.zeros(x.shape[1], 3), []
        for x_t in x:
            v = (0.5 * v) * (1 - k) + x_t
            k = (v > 1).float()
            out.append(k)
        return torch.stack(out)

    form, _ = form_of(run)

    def delayed() -> set[str]:
        references = [ref for ref in references_of(form.outputs) if ref.delay]
        return {str(ref.family.found().node.op) for ref in references}

    assert delayed() == {"aten.mul.Tensor"}
    retime(form)
    assert delayed() == {"aten.add.Tensor", "aten._to_copy.default"}


# -- refused ---------------------------------------------------------------------------------------


def _special(net: Function, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in range(len(x)):
        if t == 8:
            v = v * 0.0
        v = 0.5 * v + x[t]
        out.append(v)
    return torch.stack(out)


def _grows(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[: t + 1].sum(0) for t in range(len(x))])


def _from_the_end(net: Function, x: Tensor) -> Tensor:
    v, out = 0.0, []
    for t in reversed(range(len(x))):
        v = 0.5 * v + x[t]
        out.append(v)
    return torch.stack(out)


def _squares(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[t] * t**2 for t in range(len(x))])


def _other_ends(net: Function, x: Tensor) -> Tensor:
    return x.sum(0) if len(x) > 5 else x.amax(0)


def _parameters(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[t] * net.fc.weight.flatten()[t] for t in range(len(x))])


def _later(net: Function, x: Tensor) -> Tensor:
    return torch.stack([x[min(t + 1, len(x) - 1)] for t in range(len(x))])


@pytest.mark.parametrize(
    "run",
    [_special, _grows, _from_the_end, _squares, _other_ends, _parameters, _later],
    ids=lambda run: run.__name__[1:],
)
def test_what_has_no_form_is_refused_or_seen(run: Run) -> None:
    """Either there is no form, or it does not give the terms of a size that was not traced."""
    pool = Pool()
    try:
        form, pool = form_of(run)
    except NoLoopError:
        return
    try:
        found = unrolled(form, Size(12, 11), pool)
    except NoLoopError:
        return
    assert found[0] is not reading_of(run, Size(12, 11), pool).outputs[0]
