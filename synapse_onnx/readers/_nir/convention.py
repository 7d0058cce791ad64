"""Conventions of the frameworks that write NIR: time step, integration, reset.

NIR defines neurons by differential equations and leaves the discretisation open; a framework's
exporter does not record which difference equations it runs. A :class:`Convention` states them, with
the source file in which they were seen. With one, the parameters of a NIR node become those of
:class:`synapse_onnx.neuron.lif.Neuron`.

For example snnTorch computes ``mem = beta * mem + x`` and writes ``tau = dt / (1 - beta)``, so that
the Euler method with the same dt gives back beta; Norse writes ``tau = dt / tau_inv``, a thousandth
of the time constant in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.errors import InputError
from synapse_onnx.neuron.lif import RESETS

Array = NDArray[np.float64]

#: field of a convention -> its values
CHOICES = {
    "integration": ("euler", "exponential"),
    "reset": RESETS,
    "zero_behind": ("zero", "delayed_zero"),
    "arrives": ("spread", "jump", "decayed"),
    "enters": ("lost", "euler", "kept", "whole"),
    "readout_enters": ("lost", "euler", "kept", "whole"),
    "integrate": ("dt", "step"),
    "rest": ("zero", "v_reset", "v_leak"),
}


@dataclass(frozen=True)
class Convention:
    """How a framework discretises NIR's differential equations.

    Attributes:
        dt: time step in seconds.
        integration: "euler": a state decays by the fraction dt / tau in a time step;
            "exponential": by 1 - exp(-dt / tau).
        reset: "zero", to v_reset; "subtract", by the threshold; "delayed", by the threshold in the
            next time step.
        zero_behind: the reset to use in place of "zero" for neurons with a synaptic current or
            with feedback: "zero" or "delayed_zero".
        strict: a neuron spikes above its threshold, and not at it.
        tau_unit: unit of the time constants in the file, in seconds.
        arrives: factor on the input of the synaptic current: "spread", the fraction by which the
            current decays; "jump", 1; "decayed", the fraction of the current that is kept.
        enters: factor on r x, the input of a leaky neuron's voltage: "lost", the fraction by which
            the voltage decays; "euler", dt / tau; "kept", dt / tau divided by the fraction that is
            kept; "whole", 1.
        readout_enters: the same for neurons that never spike.
        integrate: input of IF and I in a time step: "dt", r dt x; "step", r x.
        rest: initial voltage: "zero", "v_reset" or "v_leak".
        source: the upstream file or definition in which this was seen.
    """

    dt: float = 1e-4
    integration: str = "euler"
    reset: str = "zero"
    zero_behind: str = "zero"
    strict: bool = True
    tau_unit: float = 1.0
    arrives: str = "spread"
    enters: str = "lost"
    readout_enters: str = "lost"
    integrate: str = "dt"
    rest: str = "zero"
    source: str = "NIR's equations, by the Euler method"

    def rate(self, tau: Array) -> Array:
        """Return dt / tau."""
        return self.dt / (tau * self.tau_unit)

    def decay(self, tau: Array) -> Array:
        """Return the fraction by which a state decays in a time step."""
        rate = self.rate(tau)
        return rate if self.integration == "euler" else -np.expm1(-rate)

    def current_gain(self, decay: Array) -> Array:
        """Return the factor on the input of a synaptic current with this decay."""
        return {"spread": decay, "jump": np.ones_like(decay), "decayed": 1 - decay}[self.arrives]

    def voltage_gain(self, tau: Array, decay: Array, *, spikes: bool) -> Array:
        """Return the factor on r x, the input of a voltage with this time constant and decay."""
        how = self.enters if spikes else self.readout_enters
        if how == "kept":
            with np.errstate(divide="ignore"):  # the neuron refuses an infinite gain
                return self.rate(tau) / (1 - decay)
        return {"lost": decay, "euler": self.rate(tau), "whole": np.ones_like(decay)}[how]

    def with_values(self, **values: Any) -> Convention:
        """Return a copy with other values, which are checked; None and "" change nothing."""
        convention = replace(self, **{k: v for k, v in values.items() if v not in (None, "")})
        for name in ("dt", "tau_unit"):
            value = getattr(convention, name)
            number = isinstance(value, int | float | np.number)
            if not (number and np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a finite number of seconds > 0, got {value}")
        for name, choices in CHOICES.items():
            value = getattr(convention, name)
            if value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return convention

    def with_metadata(self, metadata: Mapping[str, Any]) -> Convention:
        """Return a copy with the values that a graph's metadata hold.

        Of another framework's graph that is dt, reset and integration; a graph that we wrote
        (:meth:`metadata`) holds every field.
        """
        ours = self == CONVENTIONS["synapse-onnx"]
        values = {
            field.name: _scalar(field.name, metadata[field.name], type(field.default))
            for field in fields(self)
            if field.name in metadata and (ours or field.name in ("dt", "reset", "integration"))
        }
        return self.with_values(**values)

    def metadata(self) -> dict[str, Any]:
        """Return every field, for the metadata of a graph that we write."""
        return {"framework": "synapse-onnx"} | {
            name: value for name, value in asdict(self).items() if name != "source"
        }


def _scalar(name: str, value: Any, kind: type) -> bool | float | str:
    """A value of a graph's metadata, which HDF5 may hold as bytes or as an array of one."""
    values = np.asarray(value).reshape(-1)
    if values.size != 1:
        raise InputError(f"{name} holds {values.size} values; it must be one")
    item = values.tolist()[0]
    text = item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
    if kind is bool:
        if item not in (0, 1):
            raise InputError(f"{name} must be true or false, got {text!r}")
        return bool(item)
    if kind is str:
        return text
    if not isinstance(item, int | float):
        raise InputError(f"{name}: it is no number, got {text!r}")
    return float(item)


#: framework -> its convention
CONVENTIONS: Mapping[str, Convention] = {
    "nir": Convention(),
    "synapse-onnx": Convention(source="the metadata of the graph"),
    "snntorch": Convention(
        reset="delayed",
        zero_behind="delayed_zero",
        source="snntorch 1.0: export_nir.py (dt, tau = dt / (1 - beta)); neurons subtract the "
        "threshold in the next time step by default, and the export leaves reset_mechanism out; "
        "with reset_mechanism='zero' all but Leaky lose the input of the next time step",
    ),
    "norse": Convention(
        dt=1e-3,
        tau_unit=1e3,
        arrives="jump",
        integrate="step",
        rest="v_leak",
        source="norse 1.1: utils/export_nir.py writes tau = dt / tau_inv, which with its default "
        "dt is a thousandth of 1 / tau_inv; functional/lif.py adds the input to the current "
        "unscaled, functional/iaf.py to the voltage; voltages start at the leak",
    ),
    "spikingjelly": Convention(
        strict=False,
        rest="v_reset",
        source="spikingjelly 2.0: nir_exchange/to_nir.py (dt); it spikes at the threshold too",
    ),
    "sinabs": Convention(
        dt=1.0,
        integration="exponential",
        reset="subtract",
        strict=False,
        readout_enters="whole",
        source="sinabs 3.1: nir.py writes time constants in time steps, and leaves norm_input out, "
        "which is on for LIF and off for ExpLeak by default; several spikes in a time step are "
        "not reproduced",
    ),
    "rockpool": Convention(
        dt=1e-3,
        integration="exponential",
        reset="subtract",
        strict=False,
        arrives="decayed",
        enters="kept",
        readout_enters="euler",
        source="rockpool 3.1: nn/modules/torch/nir.py writes r = tau exp(-dt / tau) / dt, and no "
        "bias; lif_torch.py adds the input to the current, decays both states, and adds the "
        "current to the voltage; several spikes in a time step are not reproduced",
    ),
}
