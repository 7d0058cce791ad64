"""Export of many small networks in one process."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch


@contextlib.contextmanager
def quick_export(decompose: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Make torch's tables of translations once: a third of the time of a small export.

    Each export is given copies, for it enters our ops into them. What is in memory by now, which is
    torch's modules for the most part, is left to no garbage collector from here on: it would walk
    through them at every export.

    Args:
        decompose: asked at every export whether its program is traced once more, to take ops apart
            that have no translation. Without, this is done where there is such an op alone: what
            is left of the time halves. The graph computes the same, in other nodes.
    """
    from torch.export import decomp_utils, exported_program
    from torch.onnx._internal.exporter import _decomp, _fx_passes, _registration

    registries = functools.cache(_registration.ONNXRegistry.from_torchlib)
    tables = functools.cache(_decomp.create_onnx_friendly_decomposition_table)

    def registry(**options: Any) -> Any:
        copied = copy.copy(registries(**options))
        copied.functions = {op: list(found) for op, found in copied.functions.items()}
        return copied

    def table(ops: Iterable[Any]) -> dict[Any, Any]:
        return dict(tables(frozenset(ops)))

    # none of the operators that torch itself takes apart is registered behind the first export
    composites = functools.cache(exported_program._collect_all_valid_cia_ops)

    decomposed = _fx_passes.decompose_with_registry

    def decomposition(program: Any, registry: Any) -> Any:
        known = set(_decomp.get_onnx_implemented_overloads(registry))
        ops = {
            node.target
            for module in program.graph_module.modules()
            for node in module.graph.nodes
            if isinstance(node.target, torch._ops.OperatorBase)
            and "assert" not in str(node.target)  # which the exporter takes out
        }
        whole = decompose() or not ops <= known
        return decomposed(program, registry) if whole else program

    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    with (
        mock.patch.object(_fx_passes, "decompose_with_registry", decomposition),
        mock.patch.object(_registration.ONNXRegistry, "from_torchlib", staticmethod(registry)),
        mock.patch.object(decomp_utils, "_collect_all_valid_cia_ops", composites),
        mock.patch.object(exported_program, "_collect_all_valid_cia_ops", composites),
        mock.patch.object(_decomp, "create_onnx_friendly_decomposition_table", table),
    ):
        yield
