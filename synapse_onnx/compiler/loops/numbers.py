"""Numbers that change with the size of the input or with the step, as formulas.

``x.view(T * N, -1)`` is ``view(12, -1)`` in one trace and ``view(15, -1)`` in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch

from synapse_onnx.compiler.loops.terms import Size

__all__ = ["BATCH", "STEP", "Formula", "fit"]

#: what a formula is a sum of: 1, T, N, T * N and the step t
_BASES = 5

#: what a share is a part of: T, T - 1, T + 1 and N
_DIVISORS = ((0, 1, 0, 0, 0), (-1, 1, 0, 0, 0), (1, 1, 0, 0, 0), (0, 0, 1, 0, 0))

#: numbers a and e of sums a + e t that such a share is, or is made of
_ABOVE = ((1, 0), (0, 1), (1, 1))


@dataclass(frozen=True)
class Formula:
    """A number that changes with T, N or the step.

    ``a + b T + c N + d T N + e t``, one such sum divided by another, ``a * base ** t``, numbers in
    turn, or ``shift + scale * f`` of one of the first two.

    Attributes:
        factors: a, b, c, d and e; all are float where the number is one.
        divisor: those of the sum that it is divided by; None if it is not divided.
        base: base of a power of t; None of a sum.
        cycle: numbers that steps have in turn; () of a sum or a power.
        outer: shift and scale, which round: ``1 - t / T`` is another float than ``(T - t) / T``.
    """

    factors: tuple[int | float, ...]
    divisor: tuple[int | float, ...] | None = None
    base: float | None = None
    cycle: tuple[int | float, ...] = ()
    outer: tuple[float, float] | None = None
    _turns: torch.Tensor | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        # made here, and not in a trace, which would make operators of torch.tensor()
        dtype = torch.int64 if self.is_whole else torch.float64
        object.__setattr__(self, "_turns", torch.tensor(self.cycle, dtype=dtype))

    @classmethod
    def in_turn(cls, numbers: Sequence[int | float]) -> Formula:
        """Return the formula of numbers that steps have in turn."""
        return cls((0,) * _BASES, cycle=tuple(numbers))

    @property
    def changes(self) -> bool:
        """Whether it is another number at every step."""
        in_divisor = self.divisor is not None and self.divisor[-1] != 0
        return self.factors[-1] != 0 or in_divisor or self.base is not None or bool(self.cycle)

    @property
    def reads_steps(self) -> bool:
        """Whether it is another number where T is another."""
        return any(
            sums is not None and (sums[1] or sums[3]) for sums in (self.factors, self.divisor)
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is an integer, as Python has them."""
        plain = self.divisor is None and self.base is None and self.outer is None
        return plain and all(isinstance(each, int) for each in (*self.factors, *self.cycle))

    def at(self, steps: Any, batch: Any, t: Any = 0) -> Any:
        """Return the number for sizes T and N and a step t: integers or symbols of torch."""
        exact = isinstance(t, torch.Tensor) and not self.is_whole
        if self.cycle:
            return self._in_turn(t)
        t = t.double() if exact else t  # as Python computes it
        if self.base is not None:
            base = torch.tensor(self.base, dtype=torch.float64) if exact else self.base
            return base**t * self.factors[0]
        sizes = (steps, batch, lambda: steps * batch, t)
        total = _sum(self.factors, sizes)
        if self.divisor is not None:
            below = _sum(self.divisor, sizes)
            if isinstance(below, int) and below == 0:  # a tensor by 0 would be no error
                raise ZeroDivisionError("a number is divided by 0")
            total = total / below
        return total if self.outer is None else self.outer[0] + self.outer[1] * total

    def _in_turn(self, t: Any) -> Any:
        phase = t % len(self.cycle)
        if not isinstance(t, torch.Tensor):
            return self.cycle[phase]
        assert self._turns is not None
        return self._turns[phase]


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
        or _cycle(values)
        or _shifted(values)
    )
    if formula is None:
        raise ValueError(
            f"{_listed(literals)}, which neither a + b T + c N + d T N + e t, 1 divided by such a "
            f"sum, such a sum divided by T or N, a * c ** t, numbers in turn, nor one of "
            f"the first times a number plus a number gives"
        )
    if formula.cycle or formula.outer:
        return formula
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


#: what is scaled and shifted: t, (t + 1), each divided by what a share is a part of, and 1 by it
_INNER = (
    STEP,
    *(Formula((one, 0, 0, 0, step), divisor) for divisor in _DIVISORS for one, step in _ABOVE),
)


def _shifted(values: Mapping[tuple[Size, int], Any]) -> Formula | None:
    """Return ``shift + scale * f`` where that gives every value, as Python computes it."""
    for inner in _INNER:
        try:
            points = [(inner.at(k.steps, k.batch, t), float(v)) for (k, t), v in values.items()]
        except ZeroDivisionError:
            continue
        (one, low), (other, high) = min(points), max(points)
        if one == other:
            continue
        slope = (high - low) / (other - one)
        for scale in dict.fromkeys(round(slope, digits) for digits in range(1, 17)):
            start = low - scale * one
            for shift in dict.fromkeys(round(start, digits) for digits in range(1, 17)):
                if all(shift + scale * point == value for point, value in points):
                    return Formula(inner.factors, inner.divisor, outer=(shift, scale))
    return None


def _cycle(values: Mapping[tuple[Size, int], Any]) -> Formula | None:
    """Return the numbers that the steps have in turn, if each comes twice at least."""
    steps = sorted({t for _, t in values})
    for period in range(2, len(steps) // 2 + 1):
        phases: dict[int, set[Any]] = {phase: set() for phase in range(period)}
        for (_, t), value in values.items():
            phases[t % period].add((type(value), value))
        if all(len(found) == 1 for found in phases.values()):
            return Formula.in_turn([found.pop()[1] for found in phases.values()])
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
