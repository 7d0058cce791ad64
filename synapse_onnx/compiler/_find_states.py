"""The states of a network, found by running it; a network that cannot run in chunks is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from torch import Tensor, nn

from synapse_onnx.compiler._chunks import check_chunks
from synapse_onnx.compiler._dynamic import steps_per_bin, widen
from synapse_onnx.compiler._streaming import Streamed
from synapse_onnx.compiler._trace_errors import running_modules, trace_error, with_module
from synapse_onnx.errors import ExportError, ShapeError, SynapseError
from synapse_onnx.model.layout import has_time
from synapse_onnx.model.options import Options

__all__ = ["find_states"]

#: steps of a long example that are run to find the states and to compare chunks with the whole,
#: so that the time of an export does not grow with the length of the example
_EXCERPT = 64


def find_states(frozen: nn.Module, inputs: Sequence[Tensor], options: Options) -> Streamed:
    """Find the states of a frozen network, and check that it can run in chunks.

    Raises:
        ShapeError: chunks of a fixed size that cuts bins of time.
        SynapseError: a layer refuses its input.
        ExportError: two chunks do not give the outputs of the whole sequence.
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
        excerpt = [x[..., :steps] if has_time(x.dim()) else x for x in inputs]
        # a forward() that needs the whole number of steps fails on the excerpt, and the error of
        # the whole sequence is the one to report
        with contextlib.suppress(SynapseError):
            return _find_states(frozen, excerpt, options)
    return _find_states(frozen, inputs, options)


def _find_states(frozen: nn.Module, inputs: Sequence[Tensor], options: Options) -> Streamed:
    with running_modules(frozen) as running:
        try:
            check_chunks(Streamed(frozen, inputs), inputs)
            return Streamed(frozen, widen(frozen, inputs) if options.dynamic else inputs)
        except ExportError:
            raise
        except SynapseError as error:  # a layer of ours refuses its input
            raise with_module(error, running) from error
        except Exception as error:
            raise trace_error(error, running) from error
