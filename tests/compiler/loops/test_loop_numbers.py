"""Numbers that change with the size of the input, or with the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from synapse_onnx.compiler.loops.numbers import BATCH, STEP, Formula, fit
from synapse_onnx.compiler.loops.terms import Size

SIZES = [Size(5, 4), Size(6, 4), Size(7, 4), Size(6, 2)]


def _values(
    of: Callable[[int, int, int], Any], *, steps: bool = True
) -> dict[tuple[Size, int], Any]:
    return {
        (size, t): of(size.steps, size.batch, t)
        for size in SIZES
        for t in (range(size.steps) if steps else [0])
    }


#: formulas of whole values: of T and N alone
WHOLE: dict[str, Callable[[int, int, int], Any]] = {
    "T": lambda s, n, t: s,
    "N": lambda s, n, t: n,
    "T N": lambda s, n, t: s * n,
    "T - 1": lambda s, n, t: s - 1,
    "3 T N + 2 T": lambda s, n, t: 3 * s * n + 2 * s,
    "-N": lambda s, n, t: -n,
    "T / 2": lambda s, n, t: s / 2,
    "T / 4 - 0.125": lambda s, n, t: s / 4 - 0.125,
    "1 / T": lambda s, n, t: 1 / s,
    "1 / (T - 1)": lambda s, n, t: 1 / (s - 1),
    "1 / (T N)": lambda s, n, t: 1 / (s * n),
    "3 / (2 T)": lambda s, n, t: 3 / (2 * s),
    "1 - 1 / T": lambda s, n, t: 1 - 1 / s,
    "0.9 - 0.2 / T": lambda s, n, t: 0.9 - 0.2 * (1 / s),
}  # fmt: skip

#: formulas of a step
STEPS: dict[str, Callable[[int, int, int], Any]] = {
    "t": lambda s, n, t: t,
    "1 + t / 8": lambda s, n, t: 1 + t / 8,
    "T - 1 - t": lambda s, n, t: s - 1 - t,
    "1 / (t + 1)": lambda s, n, t: 1 / (t + 1),
    "float of t": lambda s, n, t: float(t),
    "0.5 (T - t)": lambda s, n, t: 0.5 * (s - t),
    "t / T": lambda s, n, t: t / s,
    "(t + 1) / T": lambda s, n, t: (t + 1) / s,
    "t / (T - 1)": lambda s, n, t: t / (s - 1),
    "0.9 ** t": lambda s, n, t: 0.9**t,
    "0.3 * 0.95 ** t": lambda s, n, t: 0.3 * 0.95**t,
    "2 ** t": lambda s, n, t: 2.0**t,
    "0.5 ** (t + 1)": lambda s, n, t: 0.5 ** (t + 1),
    "1 - t / T": lambda s, n, t: 1 - t / s,
    "1 - (t + 1) / T": lambda s, n, t: 1 - (t + 1) / s,
    "0.1 + 0.3 t": lambda s, n, t: 0.1 + 0.3 * t,
    "0.7 t / T + 0.1": lambda s, n, t: t / s * 0.7 + 0.1,
    "t % 2": lambda s, n, t: t % 2,
    "0.3 and 1.0 in turn": lambda s, n, t: (0.3, 1.0)[t % 2],
    "1, 0.5 and 0 in turn": lambda s, n, t: (1, 0.5, 0)[t % 3],
}  # fmt: skip


@pytest.mark.parametrize("name", [*WHOLE, *STEPS])
def test_a_formula_gives_every_number_and_those_of_other_sizes(name: str) -> None:
    of = (WHOLE | STEPS)[name]
    formula = fit(_values(of, steps=name in STEPS))
    assert isinstance(formula, Formula)
    assert formula.changes is (name in STEPS)
    for size in (*SIZES, Size(23, 9)):
        for t in range(size.steps) if name in STEPS else [0]:
            expected, found = of(size.steps, size.batch, t), formula.at(size.steps, size.batch, t)
            assert found == expected
            assert type(found) is type(expected) or isinstance(expected, float)


def test_one_by_the_batch_size() -> None:
    formula = fit(_values(lambda s, n, t: 1 / (3 * n), steps=False))
    assert formula.at(5, 9) == 1 / 27


@pytest.mark.parametrize("literal", [3, 0.1, -0.0, True, None, "floor", torch.float32])
def test_what_is_always_the_same_stays_a_literal(literal: Any) -> None:
    found = fit(_values(lambda *_: literal))
    assert found is literal or (found == literal and type(found) is type(literal))


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("T squared", lambda s, n, t: s * s),
        ("t squared", lambda s, n, t: t * t),
        ("a step that is special", lambda s, n, t: 2 if t == 3 else 1),
        ("even steps but one", lambda s, n, t: t % 2 if t != 5 else 3),
        ("numbers in turn that come once", lambda s, n, t: (1, 2, 5, 3)[t % 4]),
        ("a branch on T", lambda s, n, t: 1 if s > 6 else 2),
        ("text", lambda s, n, t: "abc"[s % 3]),
        ("numbers of several kinds", lambda s, n, t: 1 if s == 5 else True),
        ("a sine", lambda s, n, t: torch.sin(torch.tensor(float(t))).item()),
    ],
)
def test_what_no_formula_gives_is_refused(name: str, of: Callable[[int, int, int], Any]) -> None:
    with pytest.raises(ValueError, match=r"which neither|of different sizes") as error:
        fit(_values(of))
    assert repr(of(5, 4, 0)) in str(error.value)


def test_the_fewest_terms_are_taken() -> None:
    """Batch 4 and T = 5 might be 1 + N as well, were there no other traces."""
    assert fit(_values(lambda s, n, t: 2 * s, steps=False)) == Formula((0, 2, 0, 0, 0))
    assert fit(_values(lambda s, n, t: n, steps=False)) == BATCH
    assert fit(_values(lambda s, n, t: t)) == STEP


def test_a_power_of_tensors_is_that_of_numbers() -> None:
    formula = fit(_values(lambda s, n, t: 0.3 * 0.9**t))
    found = formula.at(12, 2, torch.arange(12))
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found, torch.tensor([0.3 * 0.9**t for t in range(12)]).double(), rtol=1e-6, atol=0
    )


def test_numbers_of_tensors_are_those_of_python() -> None:
    for of in (lambda s, n, t: 1 - t / s, lambda s, n, t: (0.3, 1.0, 0.7)[t % 3]):
        found = fit(_values(of)).at(12, 2, torch.arange(12))
        assert found.tolist() == [of(12, 2, t) for t in range(12)]


def test_a_division_by_0_is_an_error() -> None:
    """Of a tensor torch makes no error, and the network may have written max(T - 1, 1)."""
    formula = fit(_values(lambda s, n, t: t / (s - 1)))
    with pytest.raises(ZeroDivisionError):
        formula.at(1, 2, torch.arange(1))
