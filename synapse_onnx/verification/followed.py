"""A stream that torch follows chunk by chunk, each from the states that the stream has reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx._layer import named_states
from synapse_onnx.compiler.loops.states import Memory
from synapse_onnx.compiler.roundings import Decided
from synapse_onnx.model.layout import has_time
from synapse_onnx.verification.arrays import difference, first_place, largest
from synapse_onnx.verification.continued import Continued
from synapse_onnx.verification.doubts import Doubts
from synapse_onnx.verification.outputs import Run, row_of
from synapse_onnx.verification.rounded import decided_by_sample

__all__ = ["Follower"]

Array = NDArray[Any]


class Follower:
    """Torch beside a stream.

    Args:
        run: a run of a network, not of another reference.
        allowed: the largest difference of each output that is compared, by its index.
    """

    def __init__(self, run: Run, allowed: Mapping[int, float]) -> None:
        self._run, self._allowed = run, dict(allowed)
        self._torch = Continued(run)
        #: what the stream has reached, at which step of the input, and why it is not followed on
        self._states: dict[str, Array] = {}
        self._done = 0
        self._lost = ""
        #: of each output its chunks in torch and in ONNX Runtime, and where these are comparable
        self._pieces: dict[int, list[tuple[Array, Array, Array]]] = {i: [] for i in allowed}
        #: by output, the membrane where it is first wrong
        self._margins: dict[int, float | None] = {}
        self._doubt = ""
        #: states of loops of torch code, which are sums of floats
        self._loops = {
            name for name, layer, _ in named_states(run.subject.module) if isinstance(layer, Memory)
        }
        self._wrong: set[str] = set()

    def close(self) -> None:
        """Let the network's layers forget their states."""
        self._torch.close()

    def begin(self, states: Mapping[str, Array]) -> None:
        """Begin with the states of a fresh stream."""
        unknown = [name for name in states if name not in self._torch.starts]
        if unknown:
            self._lose(f"the network has no state {unknown[0]}")
            return
        self._compare_starts(states, "at the start")
        self._states = dict(states)

    def follow(self, end: int, outputs: Sequence[Array], states: Mapping[str, Array]) -> None:
        """Compare a chunk that ends at a step: its outputs and the states after it.

        Where time comes in bins, the stream keeps steps back until a bin is full.
        """
        until = end // self._run.subject.session.chunk * self._run.subject.session.chunk
        timed = any(has_time(x.dim()) for x in self._run.tensors)
        if self._lost:
            return
        if until > self._done or not timed:
            self._compare(until, outputs, states)
        else:
            self._compare_none(outputs)
            self._compare_states(self._states, states, None)
        self._states, self._done = dict(states), until

    def end(self, steps: int, outputs: Sequence[Array], states: Mapping[str, Array]) -> None:
        """Compare the end of the stream: the rest of the last bin, and the states of the next."""
        if self._lost:
            return
        if steps > self._done:
            self._compare(steps, outputs, None)
        else:
            self._compare_none(outputs)
        self._compare_starts(states, "after the end")

    def finish(self) -> None:
        """Report on every output; one that was not followed to the end has a note instead."""
        findings, names = self._run.findings, self._run.subject.session.outputs
        for i, pieces in self._pieces.items():
            label = f"{names[i]} (in chunks)"
            if self._lost:
                findings.note(f"{label}: not compared, because {self._lost}")
            elif pieces:
                self._report(i, label, pieces)

    def _report(self, i: int, label: str, pieces: list[tuple[Array, Array, Array]]) -> None:
        findings, allowed = self._run.findings, self._allowed[i]
        expected, found, covered = (np.concatenate(p, axis=-1) for p in zip(*pieces, strict=True))
        off = difference(expected, found) > allowed
        first = first_place(off & covered)
        spiking = findings.holds_spikes(label, expected)
        row = row_of(
            label, "stream", expected, found, first, exact=False, allowed=allowed, spiking=spiking
        )
        if spiking:
            findings.keep_raster(label, expected, found, first)
        findings.add(findings.outputs, row)
        if first is not None:
            findings.diverged(label, expected, found, first, self._margins.get(i))
        elif off.any():
            findings.note(
                f"{label}: {int(off.sum())} values differ from torch's within a rounding of a "
                f"threshold ({self._doubt or 'values that move by whole steps'})"
            )

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason

    def _compare(
        self, end: int, outputs: Sequence[Array], states: Mapping[str, Array] | None
    ) -> None:
        tensors = [x[..., self._done : end] if has_time(x.dim()) else x for x in self._run.tensors]
        try:
            expected = [y.numpy() for y in self._torch.run(self._states, tensors)]
        except Exception as error:  # of any class: the network's code is the user's
            reason = str(error).strip().partition("\n")[0]
            shapes = " and ".join(str(tuple(x.shape)) for x in tensors)
            self._lose(
                f"the network fails on a chunk of shape {shapes} ({type(error).__name__}: {reason})"
            )
            return
        if self._torch.unmoved:
            self._lose(f"the network runs without the state {self._torch.unmoved[0]} of its layer")
            return
        if len(expected) != len(outputs):
            self._lose(f"the network returns {len(expected)} tensors for a chunk")
            return
        for i in self._allowed:  # the last value of the whole may be 0, and that of a chunk is not
            if not has_time(expected[i].ndim):
                limit = self._run.tolerance.of(expected[i])
                self._allowed[i] = max(self._allowed[i], limit)
        doubts = clear = None
        if self._differs(expected, outputs, states):
            doubts = self._torch.doubts(tensors)
            self._doubt = self._doubt or doubts.first
            if self._run.subject.original is not None:
                clear = self._clear(tensors, expected, outputs, states or {})
        if states is not None:
            self._compare_states(self._torch.ended, states, doubts, clear)
        for i, pieces in self._pieces.items():
            self._compare_output(i, pieces, expected[i], outputs[i], doubts, clear)

    def _clear(
        self,
        tensors: Sequence[Tensor],
        expected: Sequence[Array],
        outputs: Sequence[Array],
        states: Mapping[str, Array],
    ) -> Decided | None:
        """Return what no rounding within a loop of torch code decides on, in a chunk."""
        ended = self._torch.ended
        names = [name for name in states if name in ended]
        both = [*expected, *(ended[n] for n in names)], [*outputs, *(states[n] for n in names)]
        if [y.shape for y in both[0]] != [y.shape for y in both[1]]:
            return None

        def again() -> list[Tensor]:
            results = self._torch.run(self._states, tensors)
            now = self._torch.ended
            return [*results, *(torch.from_numpy(now[name].copy()) for name in names)]

        limits = [self._allowed.get(i, 0.0) for i in range(len(expected))]
        limits += [self._limit(ended[name]) for name in names]
        batch = next((x.shape[0] for x in tensors if x.dim()), 1)
        one, other = ([torch.from_numpy(y.copy()) for y in side] for side in both)
        clear = decided_by_sample(again, batch, one, other, limits)
        again()  # which leaves the states of a usual run
        return clear

    def _limit(self, state: Array) -> float:
        return self._run.tolerance.rtol * largest(state) if state.dtype.kind == "f" else 0.0

    def _differs(
        self,
        expected: Sequence[Array],
        outputs: Sequence[Array],
        states: Mapping[str, Array] | None,
    ) -> bool:
        """Whether anything differs by more than roundings make of values of its size."""
        for i, allowed in self._allowed.items():
            same = expected[i].shape == outputs[i].shape
            if same and (difference(expected[i], outputs[i]) > allowed).any():
                return True
        ended = self._torch.ended
        for name, state in (states or {}).items():
            value = ended.get(name)
            if value is None or value.shape != state.shape:
                continue
            if (difference(value, state) > self._limit(value)).any():
                return True
        return False

    def _compare_output(
        self,
        i: int,
        pieces: list[tuple[Array, Array, Array]],
        expected: Array,
        found: Array,
        doubts: Doubts | None,
        clear: Decided | None,
    ) -> None:
        name = self._run.subject.session.outputs[i]
        if expected.shape != found.shape:
            self._problem(
                f"{name} (in chunks)", f"shape {found.shape}, and {expected.shape} in torch"
            )
            return
        covered = np.ones(expected.shape, bool)
        if doubts is not None:
            near = difference(expected, found) <= self._allowed[i] + doubts.slack(i)
            covered = doubts.covers(expected) & ~near
        if clear is not None:
            covered = covered & clear.covers(torch.from_numpy(expected)).numpy()
        if doubts is not None and i not in self._margins:
            place = first_place((difference(expected, found) > self._allowed[i]) & covered)
            if place is not None:
                self._margins[i] = doubts.margin(i, place)
        pieces.append((expected, found, covered))

    def _compare_none(self, outputs: Sequence[Array]) -> None:
        for i in self._pieces:
            if has_time(outputs[i].ndim) and outputs[i].shape[-1]:
                label = f"{self._run.subject.session.outputs[i]} (in chunks)"
                self._problem(label, f"{outputs[i].shape[-1]} steps where no bin of time ends")

    def _compare_states(
        self,
        expected: Mapping[str, Array],
        states: Mapping[str, Array],
        doubts: Doubts | None,
        clear: Decided | None = None,
    ) -> None:
        """Compare the states that a stream carries on; without ``doubts`` they are near."""
        for name, state in states.items():
            value = expected.get(name)
            if value is None or self._spares(name):
                continue
            if value.shape != state.shape:
                self._problem(
                    f"{name} (in chunks)", f"shape {state.shape}, and {value.shape} in torch"
                )
            elif doubts is not None and name in self._loops:
                wrong = difference(value, state) > self._limit(value)
                if clear is not None:
                    wrong &= clear.covers(torch.from_numpy(value)).numpy()
                self._report_state(name, value, state, wrong)
            elif doubts is not None:
                self._report_state(name, value, state, doubts.wrong(name, value, state))

    def _compare_starts(self, states: Mapping[str, Array], when: str) -> None:
        for name, state in states.items():
            start = np.full_like(state, self._torch.starts[name])
            if not self._spares(name):
                self._report_state(name, start, state, start != state, when)

    def _report_state(
        self, name: str, expected: Array, found: Array, wrong: NDArray[np.bool_], when: str = ""
    ) -> None:
        """Report where a state is wrong; the first time that it is, for all that follows may be."""
        if not wrong.any():
            return
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        values = f"torch {expected[place]:g}, ONNX Runtime {found[place]:g}"
        when = when or f"after a chunk that begins at step {self._done}"
        if self._problem(f"{name} (in chunks)", f"the state {when} differs, {place}: {values}"):
            self._run.findings.diverged(f"{name} (in chunks)", expected, found, place)

    def _problem(self, label: str, sentence: str) -> bool:
        """Report a problem, the first of this label alone; returns whether it is."""
        if label in self._wrong:
            return False
        self._wrong.add(label)
        self._run.findings.problem(f"{label}: {sentence}")
        return True

    def _spares(self, name: str) -> bool:
        subject = self._run.subject
        for state in subject.session.states:
            if state["input"] == name:
                return subject.spares_value(str(state["output"]))
        return False
