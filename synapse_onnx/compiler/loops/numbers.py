"""Numbers that change with the size of the input or with the step, as formulas.

``x.view(T * N, -1)`` is ``view(12, -1)`` in one trace and ``view(15, -1)`` in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from synapse_onnx.compiler.loops.terms import Size

__all__ = ["BATCH", "STEP", "Formula", "fit"]

#: what a formula is a sum of: 1, T, N, T * N and the step t
_BASES = 5

#: what a share is a part of: T, T - 1, T + 1 and N
_DIVISORS = ((0, 1, 0, 0, 0), (-1, 1, 0, 0, 0), (1, 1, 0, 0, 0), (0, 0, 1, 0, 0))


@dataclass(frozen=True)
class Formula:
    """``a + b T + c N + d T N + e t``, one such sum divided by another, or ``a * base ** t``.

    Attributes:
        factors: a, b, c, d and e; all are float where the number is one.
        divisor: those of the sum that it is divided by; None if it is not divided.
        base: base of a power of t; None of a sum.
    """

    factors: tuple[int | float, ...]
    divisor: tuple[int | float, ...] | None = None
    base: float | None = None

    @property
    def changes(self) -> bool:
        """Whether it is another number at every step."""
        in_divisor = self.divisor is not None and self.divisor[-1] != 0
        return self.factors[-1] != 0 or in_divisor or self.base is not None

    @property
    def reads_steps(self) -> bool:
        """Whether it is another number where T is another."""
        return any(
            sums is not None and (sums[1] or sums[3]) for sums in (self.factors, self.divisor)
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is an integer, as Python has them."""
        plain = self.divisor is None and self.base is None
        return plain and all(isinstance(factor, int) for factor in self.factors)

    def at(self, steps: Any, batch: Any, t: Any = 0) -> Any:
        """Return the number for sizes T and N and a step t: integers or symbols of torch."""
        exact = isinstance(t, torch.Tensor) and not self.is_whole
        t = t.double() if exact else t  # as Python computes it
        if self.base is not None:
            base = torch.tensor(self.base, dtype=torch.float64) if exact else self.base
            return base**t * self.factors[0]
        sizes = (steps, batch, lambda: steps * batch, t)
        total = _sum(self.factors, sizes)
        return total if self.divisor is None else total / _sum(self.divisor, sizes)


def _sum(factors: Sequence[int | float], sizes: Sequence[Any]) -> Any:
    total: Any = factors[0]
    for factor, size in zip(factors[1:], sizes, strict=True):
        if factor:
            total = total + factor * (size() if callable(size) else size)
    return total


#: N, and the number of a step
BATCH, STEP = Formula((0, 0, 1, 0, 0)), Formula((0, 0, 0, 0, 1))


def fit(values: Mapping[tuple[Size, int], Any]) -> Any:
    """Return the literal that all values are, or the formula of numbers that differ.

    Args:
        values: what an argument is in each trace at each step.

    Raises:
        ValueError: they are no numbers, or no formula gives them.
    """
    literals = list(values.values())
    first = literals[0]
    if all(type(value) is type(first) and value == first for value in literals):
        return first
    if not all(type(value) in (int, float) for value in literals):
        raise ValueError(f"{_listed(literals)} in steps or traces of different sizes")
    rows = [(1, k.steps, k.batch, k.steps * k.batch, t) for k, t in values]
    exact = [Fraction(value) for value in literals]
    formula = (
        _solve(rows, exact, bases=(1,))
        or _inverse(rows, literals)
        or _solve(rows, exact, bases=(2, 3))
        or _share(rows, literals)
        or _power(values)
    )
    if formula is None:
        raise ValueError(
            f"{_listed(literals)}, which neither a + b T + c N + d T N + e t, 1 divided by such a "
            f"sum, such a sum divided by T or N, nor a * c ** t gives"
        )
    if formula.is_whole and isinstance(first, float):
        return Formula(tuple(map(float, formula.factors)))
    return formula


def _inverse(rows: Sequence[tuple[int, ...]], values: Sequence[int | float]) -> Formula | None:
    """Return one divided by a sum: 1 / 3 is a float, and no fraction of powers of two."""
    if not all(values):
        return None
    divisors = [Fraction(1 / value).limit_denominator(1 << 16) for value in values]
    if any(float(1 / d) != value for d, value in zip(divisors, values, strict=True)):
        return None
    below = _solve(rows, divisors, bases=(1, 2, 3))
    if below is None or any(factor * 1024 % 1 for factor in below.factors):
        return None  # 1 / (2/3 T) rounds otherwise than 3 / (2 T), which is a share
    return Formula((1, 0, 0, 0, 0), below.factors)


def _share(rows: Sequence[tuple[int, ...]], values: Sequence[int | float]) -> Formula | None:
    """Return a sum divided by the steps or the samples, as ``(t + 1) / T`` is."""
    for divisor in _DIVISORS:
        below = [_sum(divisor, row[1:]) for row in rows]
        if not all(below):
            continue
        products = [
            Fraction(v * b).limit_denominator(1 << 8) for v, b in zip(values, below, strict=True)
        ]
        if any(float(p) / b != v for p, b, v in zip(products, below, values, strict=True)):
            continue
        above = _solve(rows, products, bases=(1, 2, 3))
        if above is not None:
            return Formula(above.factors, divisor)
    return None


def _power(values: Mapping[tuple[Size, int], Any]) -> Formula | None:
    """Return ``a * base ** t`` where that gives every value, as Python computes it."""
    by_step = {t: float(value) for (_, t), value in values.items()}
    first = min(by_step)
    if first + 1 not in by_step or 0 in by_step.values():
        return None
    # a quotient is rounded, and 0.9 is the shortest number near it
    quotient = by_step[first + 1] / by_step[first]
    for base in dict.fromkeys(round(quotient, digits) for digits in range(1, 17)):
        factor = by_step[first] / base**first if base else 0.0
        for factor in dict.fromkeys(round(factor, digits) for digits in range(1, 17)):
            formula = Formula((factor, 0, 0, 0, 0), base=base)
            if all(formula.at(k.steps, k.batch, t) == value for (k, t), value in values.items()):
                return formula
    return None


def _listed(values: Sequence[Any]) -> str:
    distinct = list(dict.fromkeys(map(repr, values)))
    return ", ".join(distinct[:4]) + (", ..." if len(distinct) > 4 else "")


def _solve(
    rows: Sequence[tuple[int, ...]],
    values: Sequence[Fraction],
    *,
    bases: Sequence[int],
) -> Formula | None:
    """Return the formula with the fewest bases, of these counts, that gives every value."""
    for count in bases:
        for chosen in itertools.combinations(range(_BASES), count):
            factors = _factors([[row[i] for i in chosen] for row in rows], values)
            if factors is not None and all(factors):
                full = [Fraction(0)] * _BASES
                for i, factor in zip(chosen, factors, strict=True):
                    full[i] = factor
                numbers = tuple(int(f) if f.denominator == 1 else float(f) for f in full)
                return Formula(numbers)
    return None


def _factors(rows: Sequence[Sequence[int]], values: Sequence[Fraction]) -> list[Fraction] | None:
    """Solve a system of equations exactly; None if it has no solution, or more than one."""
    width = len(rows[0])
    system = [[*map(Fraction, row), value] for row, value in zip(rows, values, strict=True)]
    for column in range(width):
        pivot = next((r for r in range(column, len(system)) if system[r][column]), None)
        if pivot is None:
            return None
        system[column], system[pivot] = system[pivot], system[column]
        head = system[column]
        system[column] = head = [value / head[column] for value in head]
        for r, row in enumerate(system):
            if r != column and row[column]:
                system[r] = [a - row[column] * b for a, b in zip(row, head, strict=True)]
    if any(row[-1] for row in system[width:]):
        return None
    return [system[r][-1] for r in range(width)]
