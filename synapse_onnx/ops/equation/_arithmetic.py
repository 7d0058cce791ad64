"""The arithmetic of a step on ONNX values: the operators of an equation write nodes."""

from __future__ import annotations

import math
from typing import Any, Literal

import onnx_ir as ir

from synapse_onnx.ops._writer import BOOL, DOUBLE, FLOAT, INT32, Writer
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT

__all__ = ["NEVER", "Arithmetic", "Narrow", "Operand", "Short", "Spikes"]

#: how spikes come out: as floats 0 and 1, as heights, as the one or the other by the attribute
#: ``graded``; or as the bits that a loop has already, see :meth:`Arithmetic.spike`
Spikes = Literal["binary", "graded", "either", "bits"]

#: a level that no state reaches
NEVER = math.inf


class Operand:
    """An ONNX value in an equation; its operators write nodes.

    Attributes:
        value: the value.
        inverted: whether a bit is stored as its opposite.
    """

    __slots__ = ("a", "inverted", "value")

    def __init__(self, a: Arithmetic, value: ir.Value, inverted: bool = False) -> None:
        self.a, self.value, self.inverted = a, value, inverted

    @property
    def dtype(self) -> ir.DataType:
        """The element type."""
        assert self.value.dtype is not None
        return self.value.dtype

    def __add__(self, other: Any) -> Operand:
        # nothing is left of a void state, and nothing is written for its sum
        return self if _is_number(other, 0) else self.a.op("Add", self, other)

    def __sub__(self, other: Any) -> Operand:
        return self if _is_number(other, 0) else self.a.op("Sub", self, other)

    def __rsub__(self, other: Any) -> Operand:
        return self.a.op("Sub", other, self)

    def __mul__(self, other: Any) -> Operand:
        return self.a.op("Mul", self, other)

    def __truediv__(self, other: Any) -> Operand:
        return self.a.op("Div", self, other)

    def __rtruediv__(self, other: Any) -> Operand:
        return self.a.op("Div", other, self)

    def __ge__(self, other: Any) -> Any:
        if other is NEVER:
            return False
        made = self.value.producer()
        if _is_number(other, 0) and self.dtype == FLOAT and made and made.op_type == "Sub":
            # no rounding changes the sign of a difference
            return self.a.op("GreaterOrEqual", *(Operand(self.a, x) for x in made.inputs if x))
        return self.a.op("GreaterOrEqual", self, other)

    def __lt__(self, other: Any) -> Operand:
        return self.a.op("Less", self, other)

    def __and__(self, other: Any) -> Operand:
        return self.a.op("And", self, other)

    def __invert__(self) -> Operand:
        return self.a.op("Not", self)

    __radd__, __rmul__ = __add__, __mul__


class Arithmetic:
    """Arithmetic of the slayer and loihi regimes in int64, or of the float regime in float32.

    Args:
        w: the writer of the body.
        dtype: element type of the states, and of numbers beside them.
        spikes: how spikes come out.
        loihi: whether states have 24 bits.

    Attributes:
        hoists: whether what depends on the currents alone is computed for all of time before a
            loop, which saves a node a step. Of many neurons it is faster in the loop: the currents
            of all steps leave the processor's cache before they are read again.
    """

    hoists = True

    def __init__(
        self, w: Writer, dtype: ir.DataType, spikes: Spikes = "binary", *, loihi: bool = False
    ) -> None:
        self.w, self.dtype, self.spikes, self.loihi = w, dtype, spikes, loihi

    # -- nodes -----------------------------------------------------------------------------------

    def operand(self, value: Any) -> Operand:
        """Return an ONNX value or a number as an operand."""
        if isinstance(value, Operand):
            return value
        return Operand(
            self, value if isinstance(value, ir.Value) else self.w.number(value, self.dtype)
        )

    def op(self, operator: str, *values: Any, name: str = "", **attributes: Any) -> Operand:
        """Write ``sum = Add(a, b)``; numbers become constants of the type of the other values."""
        like = next((value.dtype for value in values if isinstance(value, Operand)), self.dtype)
        inputs = [v.value if isinstance(v, Operand) else self.w.number(v, like) for v in values]
        return Operand(self, self.w.op(operator, *inputs, name=name, **attributes))

    def cast(self, value: Operand, dtype: ir.DataType, name: str = "") -> Operand:
        """Write ``voltage_int32 = Cast<to = 6>(voltage)``, unless the type is that already."""
        return Operand(self, self.w.cast(value.value, dtype, name))

    @property
    def scale(self) -> Operand:
        """Write ``scale_float = Cast<to = 1>(scale)``, the units of a state in one."""
        return Operand(self, self.w.cast(self.w.attribute("scale", int), FLOAT))

    @property
    def is_graded(self) -> Operand:
        """Write ``is_graded = Cast<to = 9>(graded)``."""
        return Operand(self, self.w.cast(self.w.attribute("graded", int), BOOL, "is_graded"))

    # -- what a step calls -----------------------------------------------------------------------

    def take(self, x: Operand) -> Operand:
        """Bring a current to the unit of the states: ``Cast<to = 7>(Mul(x, scale_float))``."""
        if self.dtype == FLOAT:
            return x
        scaled = self.op("Mul", x, self.scale, name=_name(x, "scaled"))
        return self.cast(scaled, self.dtype, _name(x, self.dtype.name.lower()))

    def give(self, state: Operand) -> Operand:
        """Bring a state to the unit of the currents: ``Div(Cast<to = 1>(state), scale_float)``."""
        return state if state.dtype == FLOAT else self.cast(state, FLOAT) / self.scale

    def scaled(self, state: Any, factor: Any) -> Any:
        """Write ``Div(Mul(state, factor), int64_4096)``: an integer Div truncates towards zero.

        A state of which nothing is kept is the number 0, one that is kept whole is itself.
        """
        if _is_number(factor, 0):
            return 0
        if _is_number(factor, 1):
            return state
        return self.decayed(state, factor)

    def decayed(self, state: Operand, factor: Operand) -> Operand:
        """Write the product of a state and a fraction."""
        kept = _name(state, "kept")
        product = self.op("Mul", state, factor, name=kept if self.dtype == FLOAT else "product")
        return product if self.dtype == FLOAT else self.op("Div", product, DECAY_ONE, name=kept)

    def through_float(self, state: Operand) -> Operand:
        """Write ``Cast<to = 7>(Cast<to = 1>(state))``: float32 rounds beyond 2**24."""
        if self.dtype == FLOAT or self.loihi:
            return state
        return self.cast(self.cast(state, FLOAT), self.dtype, _name(state, "rounded"))

    def where(self, condition: Operand, yes: Any, no: Any) -> Operand:
        """Write ``Where(condition, yes, no)``."""
        like = next(value.dtype for value in (yes, no) if isinstance(value, Operand))
        values = [v.value if isinstance(v, Operand) else self.w.number(v, like) for v in (yes, no)]
        return Operand(
            self, self.w.op("Where", condition.value, *values, dtype=like, name="chosen")
        )

    def raised(self, condition: Operand, amount: Operand, state: Any) -> Operand:
        """Write ``Add(state, Mul(Cast(condition), amount))``, in floats ``Where``.

        ONNX Runtime's Where takes several times as long as a product of integers with 0 or 1.
        """
        if self.dtype == FLOAT:
            return self.where(condition, state + amount, state)
        added = self.cast(condition, amount.dtype) * amount
        return added if _is_number(state, 0) else self.op("Add", state, added)

    def reset(self, condition: Any, value: Any, state: Operand) -> Operand:
        """Write ``Mul(Cast(Less(state, level)), state)``, or ``Where(condition, value, state)``.

        The former, much faster in ONNX Runtime, where integers are reset to zero by
        ``GreaterOrEqual(state, level)``.
        """
        if condition is False:  # the level is one that no state reaches
            return state
        compared = condition.value.producer()
        if self.dtype == FLOAT or not _is_number(value, 0) or compared.op_type != "GreaterOrEqual":
            return self.where(condition, value, state)
        below = self.w.op("Less", *compared.inputs, name="below")
        return self.cast(Operand(self, below), state.dtype) * state

    def biased(self, value: Operand, p: Any) -> Operand:
        """Write ``Add(value, bias)``, where there is one; with a norm in float32, and its gain. ::

        normed = Mul(Add(Cast<to = 1>(value), bias), gain)
        """
        bias: Operand | None = getattr(p, "bias", None)
        if bias is None:
            return value
        if self.loihi:
            return value + bias
        normed = self.cast(value, FLOAT) + self.cast(bias, FLOAT)
        return self.cast(normed * p.gain if hasattr(p, "gain") else normed, self.dtype)

    def current(self, state: Operand) -> Operand:
        """Wrap a current round at 24 bits, on Loihi, by two ``Where``."""
        if not self.loihi:
            return state
        high = self.op("Greater", state, STATE_LIMIT)
        over = self.where(high, state - 2 * STATE_LIMIT, state)
        low = self.op("LessOrEqual", over, -STATE_LIMIT)
        return self.where(low, state + 2 * STATE_LIMIT, over)

    def voltage(self, state: Operand) -> Operand:
        """Write ``Clip(state, int64_minus_8388607, int64_8388607)``, on Loihi."""
        if not self.loihi:
            return state
        return self.op("Clip", state, 1 - STATE_LIMIT, STATE_LIMIT - 1)

    def spike(self, fired: Operand, voltage: Operand, limit: Any) -> Operand:
        """Write spikes, as ``self.spikes`` says. ::

            spikes = Cast<to = 1>(fired)                        # binary
            spikes = Where(fired, Div(Cast<to = 1>(voltage), scale_float), float_0)  # graded

        For bits nothing is written: they are ``fired``, or the opposite where a reset of integers
        has that already.
        """
        del limit  # it shapes the gradient alone
        if self.spikes == "bits":
            compared = fired.value.producer()
            assert compared is not None
            inputs = [value for value in compared.inputs if value is not None]
            is_level = compared.op_type == "GreaterOrEqual"
            below = self.w.written("Less", *inputs) if is_level else None
            return fired if below is None else Operand(self, below, inverted=True)
        if self.spikes == "binary":
            return self.cast(fired, FLOAT, "spikes")
        height = self.where(fired, self.give(voltage), 0)
        if self.spikes == "graded":
            return height
        return self.where(self.is_graded, height, self.cast(fired, FLOAT))

    def counted(self, state: Operand, level: Operand, most: Operand) -> Operand:
        """Write how many times a state holds a level, ``most`` at the most. ::

        Min(Where(GreaterOrEqual(state, level), Floor(Div(state, level)), 0), most)
        """
        times = self.where(state >= level, self.op("Floor", state / level), 0)
        return self.op("Min", times, most, name="count")

    def raised_to(self, state: Operand, lowest: Operand) -> Operand:
        """Write ``Add(Relu(Sub(state, lowest)), lowest)``."""
        return self.op("Relu", state - lowest) + lowest

    def spikes_counted(self, count: Operand, nearest: Operand) -> Operand:
        """Return the count: it is a float already."""
        del nearest  # it shapes the gradient alone
        return count

    def phase_spike(self, fired: Operand, real: Operand, imag: Operand, limit: Any) -> Operand:
        """Write the spikes of a resonator, as :meth:`spike` does."""
        del imag
        return self.spike(fired, real, limit)

    def spikes_of(self, bits: Operand) -> Operand:
        """Write ``Cast<to = 1>(Not(bits))``: spikes as floats from the bits of a loop."""
        return self.cast(~bits if bits.inverted else bits, FLOAT, "spikes")


class Narrow(Arithmetic):
    """:class:`Arithmetic` on int32 states below 2**23, which no float32 rounds and 24 bits hold.

    A product with a decay is exact in float64, and casting it to an integer truncates it towards
    zero: ONNX Runtime's integer Div, one division an element, takes several times as long.

    Attributes:
        product: element type of a product with a decay.
    """

    product = DOUBLE

    def __init__(self, w: Writer, spikes: Spikes = "binary") -> None:
        super().__init__(w, INT32, spikes)

    def give(self, state: Operand) -> Operand:
        # what a loop compares for its bits needs no unit: all of it is exact as it is
        return state if self.spikes == "bits" else super().give(state)

    def level(self, value: Any) -> Any:
        """Write ``Cast<to = 6>(Min(level, int64_2147483647))``; what no state reaches stays so."""
        if value is NEVER:
            return value
        return self.cast(self.op("Min", value, (1 << 31) - 1), INT32, f"{value.value.name}_int32")

    def fraction(self, value: Any) -> Any:
        """Write ``Mul(Cast<to = 11>(kept), one_4096th)``, a fraction in 4096ths as a float."""
        if not isinstance(value, Operand):
            return value
        unit = Operand(self, self.w.number(1 / DECAY_ONE, self.product, "one_4096th"))
        name = f"{value.value.name}_fraction"
        return self.op("Mul", self.cast(value, self.product), unit, name=name)

    def decayed(self, state: Operand, factor: Operand) -> Operand:
        """Write ``Cast<to = 6>(Mul(Cast<to = 11>(state), factor))``."""
        product = self.cast(state, self.product) * factor
        return self.cast(product, INT32, _name(state, "kept"))

    def through_float(self, state: Operand) -> Operand:
        return state

    def biased(self, value: Operand, p: Any) -> Operand:
        if hasattr(p, "gain"):
            return super().biased(value, p)
        return value + p.bias if hasattr(p, "bias") else value


class Short(Narrow):
    """:class:`Narrow` for fractions of few bits, whose products are exact in float32.

    15/16 has four bits: times a state below 2**20 it has 24. A state that is reset is carried as a
    float32, which saves a cast.
    """

    hoists = False
    product = FLOAT

    def reset(self, condition: Any, value: Any, state: Operand) -> Operand:
        """Write ``Mul(Cast<to = 1>(Less(state, level)), Cast<to = 1>(state))``."""
        return super().reset(condition, value, self.cast(state, FLOAT))


def _is_number(value: Any, number: int) -> bool:
    """Whether a value is a number itself, and not one of the graph's."""
    return not isinstance(value, Operand) and value == number


def _name(state: Operand, suffix: str) -> str:
    """Name what is made of a state: ``voltage_kept`` of ``voltage_before``."""
    return f"{(state.value.name or 'value').removesuffix('_before').removesuffix('_t')}_{suffix}"
