"""Conventions of the frameworks that write NIR: time step, integration, reset, several spikes.

NIR defines neurons by differential equations and leaves the discretisation open; a framework's
exporter does not record which difference equations it runs. A :class:`Convention` states them, with
the source file in which they were seen. With one, the parameters of a NIR node become those of
:class:`synapse_onnx.neuron.lif.Neuron`.

For example snnTorch computes ``mem = beta * mem + x`` and writes ``tau = dt / (1 - beta)``, so that
the Euler method with the same dt gives back beta. Which convention a graph is read by, and what of
it is assumed, is found in :mod:`synapse_onnx.readers._nir.chosen`.
"""

from __future__ import annotations

import math
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


#: fields that metadata of another framework's graph may hold, under these names
_FOREIGN = {"dt", "reset", "integration", "max_spikes", "min_v_mem"}
#: fields that graphs of earlier versions of this package lack
_LATER = ("max_spikes", "min_v_mem")


@dataclass(frozen=True)
class Convention:
    """How a framework discretises NIR's differential equations.

    Attributes:
        dt: time step in seconds.
        integration: "euler": a state decays by the fraction dt / tau in a time step;
            "exponential": by 1 - exp(-dt / tau).
        reset: "zero", to v_reset; "subtract", by the threshold; "delayed", by the threshold in the
            next time step; "delayed_zero", to v_reset in the next time step.
        zero_behind: the reset to use in place of "zero" for neurons with a synaptic current or
            with feedback: "zero" or "delayed_zero".
        strict: a neuron spikes above its threshold, and not at it.
        max_spikes: most spikes of a neuron in a time step; with more than one the voltage is
            divided by the threshold.
        min_v_mem: lowest voltage after a time step: a number; "none"; "-v_threshold"; or "if", the
            latter of IF neurons alone.
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
    max_spikes: float = 1.0
    min_v_mem: str = "none"
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

    def lowest(self, kind: str, level: Array) -> Array | None:
        """Return the lowest voltage of neurons of a kind with these thresholds; None without."""
        if self.min_v_mem == "none" or (self.min_v_mem == "if" and kind != "IF"):
            return None
        if self.min_v_mem in ("if", "-v_threshold"):
            return -level if kind.endswith("IF") else None
        return np.asarray(float(self.min_v_mem))

    def with_values(self, **values: Any) -> Convention:
        """Return a copy with other values, which are checked; None and "" change nothing.

        A reset of "zero" holds for all neurons, unless ``zero_behind`` is among the values, too.
        """
        values = {k: v for k, v in values.items() if v is not None and v != ""}
        if values.get("reset") == "zero":
            values = {"zero_behind": "zero"} | values
        if "min_v_mem" in values:
            values["min_v_mem"] = _lowest_text(values["min_v_mem"])
        convention = replace(self, **values)
        for name in ("dt", "tau_unit"):
            value = getattr(convention, name)
            number = isinstance(value, int | float | np.number)
            if not (number and np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a finite number of seconds > 0, got {value}")
        for name, choices in CHOICES.items():
            value = getattr(convention, name)
            if value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if not isinstance(convention.strict, bool):
            raise InputError(f"strict must be true or false, got {convention.strict!r}")
        most = convention.max_spikes
        number = isinstance(most, int | float | np.number) and not math.isnan(most)
        if not (number and most >= 1 and (math.isinf(most) or most == int(most))):
            raise InputError(
                f"max_spikes must be a whole number of at least 1, or infinite, got {most}"
            )
        return convention

    def with_metadata(self, metadata: Mapping[str, Any]) -> Convention:
        """Return a copy with the values that a graph's metadata hold.

        Of another framework's graph that is a part (:data:`_FOREIGN`); a graph that we wrote
        (:meth:`metadata`) holds every field.
        """
        names = self.fields_of(metadata)
        kinds = {field.name: type(field.default) for field in fields(self)}
        return self.with_values(
            **{name: _scalar(name, metadata[name], kinds[name]) for name in names}
        )

    def fields_of(self, metadata: Mapping[str, Any]) -> set[str]:
        """Return the fields that a graph's metadata settle."""
        ours = self == CONVENTIONS["synapse-onnx"]
        names = {field.name for field in fields(self)} if ours else _FOREIGN
        return names & set(metadata)

    def metadata(self) -> dict[str, Any]:
        """Return every field, for the metadata of a graph that we write.

        Those of :data:`_LATER` are left out where they are as they always were.
        """
        return {"framework": "synapse-onnx"} | {
            name: value
            for name, value in asdict(self).items()
            if name != "source" and not (name in _LATER and value == getattr(Convention, name))
        }


def _lowest_text(value: Any) -> str:
    """Return a ``min_v_mem`` as text: a number, or what it is called."""
    if value in ("none", "if", "-v_threshold"):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"min_v_mem must be a finite number, none, if or -v_threshold, got {value!r}"
        )
    return repr(number)


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
        arrives="jump",
        integrate="step",
        rest="v_leak",
        source="norse: utils/export_nir.py writes tau = 1 / tau_inv, but version 1.1.0 dt / "
        "tau_inv; functional/lif.py adds the input to the current unscaled, functional/iaf.py to "
        "the voltage; voltages start at the leak",
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
        max_spikes=math.inf,
        min_v_mem="if",
        readout_enters="whole",
        source="sinabs 3.1: nir.py writes time constants in time steps, and leaves norm_input out, "
        "which is on for LIF and off for ExpLeak by default, spike_fn, which is MultiSpike, and "
        "min_v_mem, which its from_nir sets to -v_threshold for IF",
    ),
    "rockpool": Convention(
        dt=1e-3,
        integration="exponential",
        reset="subtract",
        strict=False,
        max_spikes=2.0**16,
        arrives="decayed",
        enters="kept",
        readout_enters="euler",
        source="rockpool 3.1: nn/modules/torch/nir.py writes r = tau exp(-dt / tau) / dt, and no "
        "bias; lif_torch.py adds the input to the current, decays both states, and adds the "
        "current to the voltage; the threshold fits into it up to max_spikes_per_dt times",
    ),
}
