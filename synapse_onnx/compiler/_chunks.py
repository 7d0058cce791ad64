"""The states of a network, and chunks against the whole.

A network that streams gives the same outputs however the sequence is cut; another one is refused.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx.compiler._dynamic import excerpt, steps_per_bin, widen
from synapse_onnx.compiler._streaming import Streamed
from synapse_onnx.compiler._trace_errors import running_modules, trace_error, with_module
from synapse_onnx.compiler.freezer import eagerly
from synapse_onnx.errors import ExportError, ShapeError, SynapseError
from synapse_onnx.model.layout import has_time
from synapse_onnx.model.options import Options
from synapse_onnx.synapse import GenericLayer

__all__ = ["check_chunks", "find_states"]

#: steps of a long example that are run to find the states and to compare chunks with the whole,
#: so that the time of an export does not grow with the length of the example
_EXCERPT = 64

#: float32 sums in another order, relative to the largest value; a wrong step differs by far more
_TOLERANCE = 1e-4

_CODE = "code between the layers"


def find_states(frozen: nn.Module, inputs: Sequence[Tensor], options: Options) -> Streamed:
    """Find the states of a frozen network, and check that it can run in chunks.

    Raises:
        ShapeError: chunks of a fixed size that cuts bins of time.
        SynapseError: a layer refuses its input.
        ExportError: chunks do not give the outputs of the whole sequence.
    """
    size = steps_per_bin(frozen)
    for x in inputs if not options.dynamic else ():
        if has_time(x.dim()) and x.shape[-1] % size:
            raise ShapeError(
                f"export: a stream of chunks of {x.shape[-1]} steps, as dynamic=False makes it, "
                f"holds back what is no multiple of {size}, the steps of a bin of time; give an "
                f"example whose steps are one, or export with dynamic=True"
            )
    steps = max(_EXCERPT, 2 * size)
    if options.dynamic and any(has_time(x.dim()) and x.shape[-1] > steps for x in inputs):
        # a forward() that needs the whole number of steps fails on the excerpt, and the error of
        # the whole sequence is the one to report
        with contextlib.suppress(SynapseError):
            return _find_states(frozen, excerpt(inputs, steps), options)
    return _find_states(frozen, inputs, options)


def _find_states(frozen: nn.Module, inputs: Sequence[Tensor], options: Options) -> Streamed:
    with running_modules(frozen) as running, eagerly():
        try:
            check_chunks(Streamed(frozen, inputs), inputs)
            return Streamed(frozen, widen(frozen, inputs) if options.dynamic else inputs)
        except ExportError:
            raise
        except SynapseError as error:  # a layer of ours refuses its input
            raise with_module(error, running) from error
        except Exception as error:
            raise trace_error(error, running) from error


def check_chunks(streamed: Streamed, inputs: Sequence[Tensor]) -> None:
    """Refuse a network for which chunks are not the whole sequence.

    While chunks are run, every layer gets the inputs, and passes on the outputs, that it had with
    the whole sequence: a float sum that is rounded differently in a chunk then flips no spike
    further on. So the code between two layers is compared, and every layer by itself.

    Raises:
        ExportError: an output has no time axis, or chunks are not the whole.
    """
    network = streamed.network
    steps = min((x.shape[-1] for x in inputs if has_time(x.dim())), default=0)
    cut = steps // 2 // streamed.chunk * streamed.chunk
    states: Sequence[Tensor] = [state.example for state in streamed.states]
    if cut < 1:
        _check_longer(streamed, inputs, states)
        return
    with torch.no_grad(), _Recorder(network) as recorder:
        whole = _run(streamed, inputs, states)[: -len(states) or None]
        _check_axes(streamed, whole)
        recorder.pass_outputs(whole)
        for begin, end in itertools.pairwise(_cuts(steps, cut, streamed.chunk)):
            recorder.next_chunk()
            chunk = [x[..., begin:end] if has_time(x.dim()) else x for x in inputs]
            try:
                results = _run(streamed, chunk, states)
            except SynapseError:
                raise
            except Exception as error:  # of any class, for it is the user's code
                reason = str(error).strip().partition("\n")[0]
                raise ExportError(
                    f"streaming: forward() takes {steps} time steps and fails on a chunk of "
                    f"{end - begin} of them ({type(error).__name__}: {reason}); let it take any "
                    f"number of steps, or export without streaming"
                ) from error
            for i, (y, all_steps) in enumerate(zip(results, whole, strict=False)):
                if y.shape == all_steps.shape and i not in streamed.last_values:
                    raise _same_shape(i, y)
            recorder.pass_outputs(results[: len(whole)])
            states = results[len(whole) :]
        recorder.finish()
        for i in streamed.last_values:
            if not _is_close(results[i], whole[i]):
                raise _difference(f"output {i}", _CODE)


def _cuts(steps: int, half: int, chunk: int) -> list[int]:
    """Return where a sequence is cut: at the half, and a step, or a bin, later.

    What counts steps from 0 in every chunk, as ``y[::2]`` or ``torch.arange(T) % 4`` does, gives
    the whole if each chunk begins at a multiple of its period. Cuts a step apart share no period.
    """
    return [0, half, *([half + chunk] if half + chunk < steps else []), steps]


def _check_axes(streamed: Streamed, whole: Sequence[Tensor]) -> None:
    for i, y in enumerate(whole):
        if not has_time(y.dim()) and i not in streamed.last_values:
            raise ExportError(
                f"streaming: output {i} of shape {tuple(y.shape)} has no time axis, so it cannot "
                f"come step by step; return (N, C[, H, W], T), or what follows from a sum that the "
                f"loop adds up"
            )
        if has_time(y.dim()) and i in streamed.last_values:
            raise ExportError(
                f"streaming: output {i} of shape {tuple(y.shape)} is a value after the last step, "
                f"and a stream takes {y.dim()} axes for those of a sequence; return it with two or "
                f"four axes, as y.flatten(1) has"
            )


def _check_longer(streamed: Streamed, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> None:
    """Refuse an output without time, by a longer input where this one is too short to be cut."""
    times = 2 * streamed.chunk
    longer = [torch.cat([x] * times, dim=-1) if has_time(x.dim()) else x for x in inputs]
    with torch.no_grad():
        whole = _run(streamed, inputs, states)[: -len(states) or None]
        _check_axes(streamed, whole)
        if not any(has_time(x.dim()) for x in inputs):
            return
        try:
            results = _run(streamed, longer, states)
        except Exception:  # of any class: the network takes one length alone
            return
    for i, (y, once) in enumerate(zip(results, whole, strict=False)):
        if y.shape == once.shape and i not in streamed.last_values:
            raise _same_shape(i, y)


def _same_shape(i: int, y: Tensor) -> ExportError:
    return ExportError(
        f"streaming: output {i} has shape {tuple(y.shape)} for any number of time steps, so it "
        f"cannot come step by step; return (N, C[, H, W], T), or export without streaming"
    )


def _run(streamed: Streamed, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Any, ...]:
    """Run the network once, on copies: it may change its arguments in place."""
    return streamed.run(streamed.network, [x.clone() for x in inputs], states)


class _Recorder(contextlib.ExitStack):
    """Inputs and outputs of a network's layers: recorded first, then compared chunk by chunk."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        #: (place, cause of a difference there, number of the call) -> the whole sequence
        self._recorded: dict[tuple[str, str, int], Tensor] = {}
        #: how many steps of each the chunks had so far
        self._steps: Counter[tuple[str, str, int]] = Counter()
        self._calls: Counter[str] = Counter()
        self._compares = False
        found = hasattr(network, "looped")  # its form shows what a step reads
        for path, layer in network.named_modules():
            # a synapse in a form may read all steps as samples, (T * N, C), and keeps no state
            if isinstance(layer, Deployable) and not (found and isinstance(layer, GenericLayer)):
                name = path or "the network"

                def before(_: Any, args: Any, kwargs: Any, name: str = name) -> Any:
                    return self._pass(f"the input of {name}", _CODE, (args, kwargs))

                def after(_: Any, __: Any, y: Any, name: str = name) -> Any:
                    return self._pass(f"the output of {name}", "the layer", y)

                self.enter_context(layer.register_forward_pre_hook(before, with_kwargs=True))
                self.enter_context(layer.register_forward_hook(after))

    def next_chunk(self) -> None:
        """Compare from here on, with the steps that follow the last chunk."""
        self._calls.clear()
        self._compares = True

    def pass_outputs(self, outputs: Sequence[Tensor]) -> None:
        """Record or compare the network's own outputs."""
        for i, y in enumerate(outputs):
            self._pass(f"output {i}", _CODE, y)

    def finish(self) -> None:
        """Check that the chunks had every step that was recorded."""
        for (place, cause, call), value in self._recorded.items():
            if self._steps[place, cause, call] != value.shape[-1]:
                raise _difference(place, cause)

    def _pass(self, place: str, cause: str, values: Any) -> Any:
        """Record values, or compare them with the recorded ones and return the latter."""
        leaves, structure = torch.utils._pytree.tree_flatten(values)
        for i, value in enumerate(leaves):
            if not isinstance(value, Tensor) or not has_time(value.dim()):
                continue
            key = (place, cause, self._calls[place])
            self._calls[place] += 1
            if not self._compares:
                self._recorded[key] = value.clone()  # which may be changed in place
                continue
            begin = self._steps[key]
            self._steps[key] += value.shape[-1]
            if key not in self._recorded:
                raise _difference(place, cause)
            expected = self._recorded[key][..., begin : self._steps[key]]
            if not _is_close(value, expected):
                raise _difference(place, cause)
            leaves[i] = expected.clone()
        return torch.utils._pytree.tree_unflatten(leaves, structure)


def _difference(place: str, cause: str) -> ExportError:
    return ExportError(
        f"streaming: in chunks, {place} is not that of the whole sequence; {cause} looks at "
        f"more than one time step, or keeps a state that no layer of this package knows of"
    )


def _is_close(value: Tensor, expected: Tensor) -> bool:
    if value.shape != expected.shape:
        return False
    value, expected = value.double(), expected.double()
    finite = expected[expected.isfinite()].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    return torch.allclose(value, expected, rtol=0.0, atol=_TOLERANCE * largest, equal_nan=True)
