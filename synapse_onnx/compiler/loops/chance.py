"""Whether an operator draws random numbers: dropout with a probability of 0 draws none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["draws_numbers"]


def draws_numbers(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator draws random numbers, given its arguments.

    ``scaled_dot_product_attention`` has a dropout, so torch tags it as random, also where that is
    switched off.
    """
    if torch.Tag.nondeterministic_seeded not in getattr(op, "tags", ()):
        return False
    for i, argument in enumerate(op._schema.arguments):
        if argument.name == "dropout_p":
            share = args[i] if i < len(args) else kwargs.get("dropout_p", argument.default_value)
            return bool(share != 0)
    return True
