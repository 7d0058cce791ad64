"""Export of many small networks in one process."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def quick_export() -> Iterator[None]:
    """Make torch's tables of translations once: a third of the time of a small export.

    Each export is given copies, for it enters our ops into them.
    """
    from torch.onnx._internal.exporter import _decomp, _registration

    registries = functools.cache(_registration.ONNXRegistry.from_torchlib)
    tables = functools.cache(_decomp.create_onnx_friendly_decomposition_table)

    def registry(**options: Any) -> Any:
        copied = copy.copy(registries(**options))
        copied.functions = {op: list(found) for op, found in copied.functions.items()}
        return copied

    def table(ops: Iterable[Any]) -> dict[Any, Any]:
        return dict(tables(frozenset(ops)))

    with (
        mock.patch.object(_registration.ONNXRegistry, "from_torchlib", staticmethod(registry)),
        mock.patch.object(_decomp, "create_onnx_friendly_decomposition_table", table),
    ):
        yield
