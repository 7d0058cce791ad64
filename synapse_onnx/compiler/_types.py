"""Whether torch's exporter would convert a number or a tensor of a traced program to another type.

It does where operands differ in type, as in ``x + 1``: x has floats, and 1 is an integer. To find
out, it runs the whole program. Types are known without a run.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

__all__ = ["is_of_one_type"]

#: torch's pass that converts, and its types of Python's numbers; private to torch
_PASS = "torch.onnx._internal.fx.passes.type_promotion"
_NUMBERS = "torch.onnx._internal.fx.type_utils"


def is_of_one_type(module: torch.fx.GraphModule) -> bool:
    """Return whether no operand of a program, and of the programs in it, would be converted.

    The rules are torch's. False where a torch has none that can be asked: it converts as always.
    """
    try:
        return not any(
            _is_converted(node)
            for part in module.modules()
            if isinstance(part, torch.fx.GraphModule)
            for node in part.graph.nodes
            if node.op == "call_function"
        )
    except Exception:  # whatever a private function of another torch raises
        return False


def _is_converted(node: torch.fx.Node) -> bool:
    promotion: Any = importlib.import_module(_PASS)
    rule = promotion.get_type_promotion_rule(node, _rules())
    if rule is None:
        return False
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda given: given.meta["val"])
    needed = rule.preview_type_promotion(args, kwargs)
    operands = [(needed.args_dtypes.get(place), value) for place, value in enumerate(args)]
    operands += [(needed.kwargs_dtypes.get(name), value) for name, value in kwargs.items()]
    return any(
        _type_of(leaf) != dtype
        for dtype, value in operands
        if dtype is not None
        for leaf in tree_leaves(value)
    )


def _type_of(value: Any) -> torch.dtype | None:
    if isinstance(value, torch.Tensor):
        return value.dtype
    numbers: Any = importlib.import_module(_NUMBERS)
    dtype: torch.dtype | None = numbers.from_scalar_type_to_torch_dtype(type(value))
    return dtype


@functools.cache
def _rules() -> Any:
    promotion: Any = importlib.import_module(_PASS)
    return promotion.TypePromotionTable()
