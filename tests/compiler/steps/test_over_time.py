"""A module of single steps over a sequence is a loop of it from fresh states."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from stepping import CELLS, KEEPING, Cell, Keeping, exact, example, lif, looped
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import synapse_onnx as so


def same(one: Any, other: Any) -> bool:
    (leaves, structure), (others, expected) = map(pytree.tree_flatten, (one, other))
    return structure == expected and all(
        a is b if a is None else torch.equal(a, b) for a, b in zip(leaves, others, strict=True)
    )


# -- states that are kept --------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEEPING)
def test_every_call_starts_afresh(name: str) -> None:
    make = KEEPING[name]
    net = so.over_time(make())
    for seed, (steps, batch) in enumerate([(9, 3), (9, 3), (4, 2), (1, 1)]):
        x = example(steps, batch, seed=seed)
        assert same(net(x), looped(make, x))


@pytest.mark.parametrize("name", KEEPING)
def test_a_module_that_ran_since_starts_afresh(name: str) -> None:
    step, x = KEEPING[name](), example(5, 2)
    net = so.over_time(step)
    for seed in range(2):
        with torch.no_grad():
            for x_t in example(4, 2, seed=7 + seed):
                step(x_t)
        assert same(net(x), looped(KEEPING[name], x))


def test_states_are_those_of_the_last_step_after_a_call() -> None:
    step, by_hand, x = KEEPING["attribute"](), KEEPING["attribute"](), example(5, 2)
    so.over_time(step)(x)
    for x_t in x:
        by_hand(x_t)
    assert torch.equal(step.v, by_hand.v)


class Tired(nn.Module):
    """A state that nothing changes before the first spike."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 5:
            self.rest = 3
        elif self.rest:
            self.rest -= 1
        return x * (self.rest == 0)


def test_a_state_that_changes_late_starts_afresh() -> None:
    step = Tired()
    net, quiet, loud = so.over_time(step), torch.ones(4, 2, 3), torch.ones(4, 2, 3)
    loud[1] = 9
    net(quiet)
    step.rest = 2  # by a call in between
    assert same(net(loud), looped(Tired, loud))
    assert same(net(quiet), quiet)


# -- axes and arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(("axes", "axis"), [("TNC", 0), ("NTC", 1), ("NCT", -1), ("TNC...", 0)])
def test_axes(axes: str, axis: int) -> None:
    x = example(5, 3)
    spikes, others = so.over_time(KEEPING["number"](), axes=axes)(x.movedim(0, axis))
    expected, values = looped(KEEPING["number"], x)
    assert torch.equal(spikes, expected.movedim(0, axis))
    assert torch.equal(others["both"][1][0], values["both"][1][0].movedim(0, axis))


class Scaled(Keeping):
    """Two inputs, of which one may have no time; images."""

    def __init__(self) -> None:
        super().__init__(lambda module: setattr(module, "v", 0.0), lif)
        self.fc = exact(nn.Conv2d(2, 3, 3))

    def forward(self, x: Tensor, gain: Tensor, *, bias: Tensor | None = None) -> Tensor:
        spikes, self.v = lif(self.v, self.fc(x) * gain + (0 if bias is None else bias))
        return spikes.sum((1, 2, 3))


def test_images_and_inputs_without_time() -> None:
    x, gain = torch.randint(-1, 3, (4, 2, 2, 6, 6)).float(), torch.tensor(2.0)
    by_hand = Scaled()
    expected = torch.stack([by_hand(x_t, gain, bias=gain) for x_t in x])
    net = so.over_time(Scaled())
    assert torch.equal(net(x, gain, bias=gain), expected)
    assert torch.equal(net(gain=gain, x=x, bias=gain), expected)
    with pytest.raises(TypeError, match="gain"):
        net(x)


# -- states that are handed on ---------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_cells_are_given_what_they_returned(name: str, batch: int) -> None:
    make, states = CELLS[name]
    cell, x, rows, state = make(), example(6, batch), [], {}
    names = {"two states": ["mem1", "mem2"], "state and output": ["hidden"]}
    names = names.get(name, ["hx" if name == "all is state" else "state"])
    state = dict.fromkeys(names)
    for x_t in x:
        result = cell(x_t, **state)
        handed = [result] if not states else result[-states:]
        state = dict(zip(names, handed, strict=True))
        outputs = result[:-states] if states else result
        rows.append(outputs[0] if states == 1 else outputs)
    assert same(so.over_time(make())(x), pytree.tree_map(lambda *y: torch.stack(y), *rows))


@pytest.mark.parametrize("make", [nn.GRUCell, nn.RNNCell, nn.LSTMCell])
def test_cells_of_torch(make: Any) -> None:
    cell, x, state, rows = make(6, 8), example(5, 3), None, []
    for x_t in x:
        state = cell(x_t, state)
        rows.append(state)
    assert same(so.over_time(cell)(x), pytree.tree_map(lambda *y: torch.stack(y), *rows))


class Forbids(Keeping):
    """As snnTorch's neurons with init_hidden: the state is an argument that must not be given."""

    def __init__(self, own: bool = True) -> None:
        super().__init__(lambda module: setattr(module, "v", 0.0), lif)
        self.own = own

    def forward(self, x: Tensor, mem: Any = None) -> Any:
        if mem is not None and self.own:
            raise TypeError("mem must not be given")
        spikes, self.v = lif(self.v if mem is None else mem, self.fc(x))
        return spikes, self.v


@pytest.mark.parametrize("own", [True, False], ids=["forbids", "keeps what it is given"])
def test_a_state_that_is_kept_and_returned_is_an_output(own: bool) -> None:
    x = example(6, 2)
    assert same(so.over_time(Forbids(own))(x), looped(Forbids, x))


# -- a module like any other -----------------------------------------------------------------------


class Second(nn.Module):
    """The first voltage of what is returned."""

    def forward(self, values: Any) -> Tensor:
        return values[1]["v"]


def test_parameters_and_their_names_are_those_of_the_step_module() -> None:
    step = nn.Sequential(KEEPING["number"](), Second(), nn.Linear(8, 3))
    net = so.over_time(step)
    assert list(net.state_dict()) == list(step.state_dict())
    assert all(a is b for a, b in zip(net.parameters(), step.parameters(), strict=True))
    net.double()
    assert step[2].weight.dtype == torch.float64
    assert net(example(3, 2).double()).dtype == torch.float64
    assert net.eval().training is step.training is step[1].training is False
    assert net.train().training is step.training is step[1].training is True


def test_gradients_flow_through_time() -> None:
    torch.manual_seed(0)
    cells = [nn.GRUCell(6, 8) for _ in range(2)]
    cells[1].load_state_dict(cells[0].state_dict())
    x, h = torch.rand(6, 2, 6), None
    so.over_time(cells[0])(x)[-1].sum().backward()
    for x_t in x:
        h = cells[1](x_t, h)
    h.sum().backward()
    assert all(
        torch.equal(a.grad, b.grad)
        for a, b in zip(cells[0].parameters(), cells[1].parameters(), strict=True)
    )


class Normed(Keeping):
    """A norm, and a mean of its own that training alone changes."""

    def __init__(self) -> None:
        super().__init__(lambda module: setattr(module, "v", None), lif)
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + x.mean().detach()
        v = torch.zeros(len(x), 8) if self.v is None else self.v
        _, self.v = lif(v, self.fc(self.norm(x)) + self.mean)
        return self.v


def test_training_twice_is_training_by_hand() -> None:
    """A backward pass each; statistics are no states, and are counted once."""
    step, by_hand = Normed(), Normed()
    net = so.over_time(step)
    for seed in range(2):
        x = example(5, 3, seed=seed)
        by_hand.v = None
        expected = torch.stack([by_hand(x_t) for x_t in x])
        assert torch.equal(net(x), expected)
        expected.sum().backward()
    assert by_hand.norm.num_batches_tracked == step.norm.num_batches_tracked == 10
    assert torch.equal(by_hand.mean, step.mean)
    net(x).sum().backward()
    net(x).sum().backward()


def test_a_checkpoint_that_is_loaded_later_counts() -> None:
    """Also of buffers, which might be taken for states."""

    class Gained(Keeping):
        def __init__(self) -> None:
            super().__init__(lambda module: setattr(module, "v", None), lif)
            self.register_buffer("gain", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            v = torch.zeros(len(x), 8) if self.v is None else self.v
            spikes, self.v = lif(v, self.gain * self.fc(x))
            return spikes

    net, other = so.over_time(Gained()), Gained()
    net(example(3, 2))
    other.fc.weight.data += 1
    other.gain += 1
    net.load_state_dict(other.state_dict())
    x = example(5, 3)
    expected = so.over_time(other)(x)
    assert torch.equal(net(x), expected)
    assert not torch.equal(so.over_time(Gained())(x), expected)


@pytest.mark.parametrize("ran", [False, True])
def test_copies_are_their_own(ran: bool) -> None:
    net, x = so.over_time(KEEPING["attribute"]()), example(5, 2)
    if ran:
        with torch.no_grad():  # torch copies no graph
            net(x)
    expected = looped(KEEPING["attribute"], x)
    buffer = io.BytesIO()
    cell = so.over_time(Cell())
    torch.save(cell, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), cell(x))
    copied = copy.deepcopy(net)
    assert torch.equal(copied(x), expected)
    assert list(copied.state_dict()) == list(net.state_dict())
    copied.fc.weight.data *= 2
    assert not torch.equal(copied(x), expected)
    copied.fc.weight.data /= 2
    net.fc.weight.data += 1
    assert torch.equal(copied(x), expected)
    assert not torch.equal(net(x), expected)


def test_hooks_of_the_step_module_run_at_every_step() -> None:
    step, calls = KEEPING["attribute"](), []
    step.register_forward_hook(lambda *_: calls.append(1))
    net, x = so.over_time(step), example(5, 2)
    net(x)
    calls.clear()
    net(x)
    assert len(calls) == 5


def test_nothing_is_drawn_from_the_callers_random_numbers() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    net = so.over_time(Noisy())
    torch.manual_seed(3)
    first = net(example(3, 2))
    torch.manual_seed(3)
    assert torch.equal(first, net(example(3, 2)))


# -- what is refused -------------------------------------------------------------------------------


class Unclear(nn.Module):
    def forward(self, x: Tensor, past: Any = None) -> Any:
        past = x if past is None else past + x
        return 2 * past, past


class NoNone(nn.Module):
    def forward(self, x: Tensor, mem: Tensor) -> Any:
        return (mem > 1).float(), 0.5 * mem + x


class Swapped(nn.Module):
    """Returns its two states the other way round, which its parts know better."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Forbids(own=False), Forbids(own=False)
        self.b.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Any:
        x, mem1 = self.a(x, mem1)
        x, mem2 = self.b(x, mem2)
        return x, mem2, mem1


class Either(nn.Module):
    """What it returns could be a pair of states, or an output and a state."""

    def forward(self, x: Tensor, hidden: Any = None) -> Any:
        last = 0.0 if hidden is None else sum(hidden)
        return x + last, x


class Counts(nn.Module):
    n = 0

    def forward(self, x: Tensor) -> Any:
        self.n += 1
        return x, self.n


class Fewer(nn.Module):
    def forward(self, x: Tensor, mem1: Any = None, mem2: Any = None) -> Tensor:
        return x if mem1 is None else x + mem1


class Varies(nn.Module):
    n = 0

    def forward(self, x: Tensor) -> Any:
        self.n += 1
        return x if self.n % 2 else (x, x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "unclear": (Unclear, "keeps no state, and whether past of forward"),
    "no None": (NoNone, "fails where mem is None, as at the first step .TypeError"),
    "swapped": (Swapped, r"returns mem1, mem2, and its parts keep states of their own .a\.v, b\.v"),
    "either": (Either, "whether hidden is the last value that forward.. returns, or all"),
    "numbers": (Counts, "an output is 1 at one step and 3 at another"),
    "fewer": (Fewer, "given the states mem1, mem2, and does not return as many"),
    "kinds": (Varies, "different structures"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(name: str) -> None:
    make, sentence = REFUSED[name]
    with pytest.raises(so.InputError, match=rf"^over_time: .*{sentence}"):
        so.over_time(make())(example(3, 2))


@pytest.mark.parametrize("shape", [(3, 6), (0, 2, 6), (2, 3, 4, 6)], ids=str)
def test_inputs_that_are_no_sequence(shape: tuple[int, ...]) -> None:
    with pytest.raises(so.ShapeError, match=r"must be sequences \(T, N, C\[, H, W\]\) of one"):
        so.over_time(KEEPING["attribute"]())(torch.zeros(shape))


def test_sequences_of_two_lengths() -> None:
    net = so.over_time(nn.Bilinear(6, 6, 3), axes="NTC")
    with pytest.raises(so.ShapeError, match=r"\(N, T, C\[, H, W\]\) of one length.* and "):
        net(torch.zeros(2, 4, 6), torch.zeros(2, 5, 6))


def test_what_is_no_step_module() -> None:
    with pytest.raises(so.InputError, match="must be NCT or TNC or NTC, got 'TCN'"):
        so.over_time(Cell(), axes="TCN")
    with pytest.raises(so.InputError, match="runs over time already"):
        so.over_time(so.over_time(Cell()))
    with pytest.raises(so.InputError, match=r"must be a torch\.nn\.Module, got the class Cell"):
        so.over_time(Cell)


def test_a_state_with_a_graph_of_an_earlier_call() -> None:
    step, x = KEEPING["attribute"](), example(3, 2)
    step(x[0])
    with pytest.raises(so.InputError, match="v is a state, and holds what an earlier call"):
        so.over_time(step)(x)
    step.v = None
    assert same(so.over_time(step)(x), looped(KEEPING["attribute"], x))


def test_a_record_of_an_earlier_call_is_no_state() -> None:
    class Records(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.rate = super().forward(x)
            return self.rate > 0

    step, x = Records(6, 8), example(3, 2)
    step(x[0])
    assert same(so.over_time(step)(x), torch.stack([step(x_t) for x_t in x]))
