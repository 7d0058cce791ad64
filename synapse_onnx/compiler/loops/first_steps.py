"""First steps that are computed in another way become values of their family.

Where ``mem`` is None before the first step, ``mem[0]`` is the input itself, and all that follows
reads the input at step 0 instead of the sum that ``mem`` is later. So the sum gets the input as its
first value, and whoever reads it reads one family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synapse_onnx.compiler.loops.form import Family, Fixed, Reference, references_of

__all__ = ["settle_first_steps"]


def settle_first_steps(
    outputs: list[Any], family_at: Callable[[Any], tuple[Family, int] | None]
) -> None:
    """Give families the early values that all who read them read instead.

    Args:
        outputs: the outputs of a form.
        family_at: gives the family and the step that a whole value is; None of another one.
    """
    references = list(references_of(outputs))
    values: dict[tuple[Family, int], dict[int, Any]] = {}
    for reference in references:
        for t, value in reference.instead.items():
            if t >= reference.delay:
                key = (reference.family.found(), t - reference.delay)
                values.setdefault(key, {})[id(value)] = value
    settled = set()
    for (family, step), found in values.items():
        regular = {t for _, t in family.members}
        if len(found) == 1 and step not in regular:
            (value,) = found.values()
            other = family_at(value)
            at_step = other is not None and other[1] == step
            family.first[step] = Reference(other[0]) if other and at_step else Fixed(value)
            settled.add((family, step))
    for reference in references:
        family, delay = reference.family.found(), reference.delay
        reference.instead = {
            t: value for t, value in reference.instead.items() if (family, t - delay) not in settled
        }
