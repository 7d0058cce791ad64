"""What the frameworks that write NIR mean by it: time step, integration, reset.

NIR states differential equations; which difference equations a framework runs, it does not say. The
parameters of a node become those of :class:`synapse_onnx.neuron.lif.Neuron` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.errors import InputError
from synapse_onnx.neuron.lif import RESETS

__all__ = ["CONVENTIONS", "Convention"]

Array = NDArray[np.float64]

#: field of a convention -> the words that it may be
WORDS = {
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
    """How a framework steps through time.

    Attributes:
        dt: seconds of a step.
        integration: "euler": a state loses dt / tau of itself; "exponential": it keeps
            exp(-dt / tau), and takes in the rest.
        reset: "zero", to v_reset; "subtract", by the threshold; "delayed", in the next step.
        zero_behind: what a reset to zero is for neurons with a synaptic current or with feedback.
        strict: whether a neuron spikes above the threshold, and not at it.
        tau_unit: seconds of the time constants in the file.
        arrives: how an input comes into the synaptic current: "spread", as much of it as the
            current loses in a step; "jump", the whole, at once; "decayed", what a step leaves of
            the whole.
        enters: how r x comes into the voltage of a leaky neuron: "lost", as much of it as the
            voltage loses in a step; "euler", dt / tau of it; "kept", dt / tau of it over what the
            voltage keeps; "whole", all of it.
        readout_enters: the same for neurons that never spike.
        integrate: what IF and I add to the voltage in a step: "dt", r dt x; "step", r x.
        rest: what the voltage starts from: "zero", "v_reset" or "v_leak".
        source: where this is seen.
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

    def steps(self, tau: Array) -> Array:
        """Return a step's share of a time constant, dt / tau."""
        return self.dt / (tau * self.tau_unit)

    def decay(self, tau: Array) -> Array:
        """Return the fraction of a state that is lost in a step."""
        steps = self.steps(tau)
        return steps if self.integration == "euler" else -np.expm1(-steps)

    def arriving(self, lost: Array) -> Array:
        """Return the factor on an input to a synaptic current that loses so much in a step."""
        return {"spread": lost, "jump": np.ones_like(lost), "decayed": 1 - lost}[self.arrives]

    def entering(self, tau: Array, lost: Array, *, spikes: bool) -> Array:
        """Return the factor on r x, of a voltage with this time constant and loss in a step."""
        how = self.enters if spikes else self.readout_enters
        if how == "kept":
            with np.errstate(divide="ignore"):  # the neuron refuses what is infinite
                return self.steps(tau) / (1 - lost)
        return {"lost": lost, "euler": self.steps(tau), "whole": np.ones_like(lost)}[how]

    def changed(self, **given: Any) -> Convention:
        """Return this convention with other values, those that are not None or empty.

        Raises:
            InputError: a value is none of those that there are.
        """
        values = {name: value for name, value in given.items() if value not in (None, "")}
        found = replace(self, **values)
        for name in ("dt", "tau_unit"):
            value = getattr(found, name)
            number = isinstance(value, int | float | np.number)
            if not (number and np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a finite number of seconds > 0, got {value}")
        for name, known in WORDS.items():
            if getattr(found, name) not in known:
                raise InputError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(found, name)!r}"
                )
        return found

    def told(self, written: Mapping[str, Any]) -> Convention:
        """Return this convention with what a graph's metadata say.

        Of a framework they may say dt, reset and integration; of a graph of ours, everything.

        Raises:
            InputError: a value is none of those that there are.
        """
        own = self == CONVENTIONS["synapse-onnx"]
        values: dict[str, Any] = {}
        for field in fields(self):
            name = field.name
            if name not in written or not (own or name in ("dt", "reset", "integration")):
                continue
            value = np.asarray(written[name]).reshape(-1)
            if value.size != 1:
                raise InputError(f"{name} holds {value.size} values; it must be one")
            item = value.tolist()[0]
            text = item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
            if isinstance(field.default, bool):
                if item not in (0, 1):
                    raise InputError(f"{name} must be true or false, got {text!r}")
                values[name] = bool(item)
            elif isinstance(field.default, str):
                values[name] = text
            elif isinstance(item, int | float):
                values[name] = float(item)
            else:
                raise InputError(f"{name}: it is no number, got {text!r}")
        return self.changed(**values)

    def metadata(self) -> dict[str, Any]:
        """Return what a graph written by us says of itself."""
        return {"framework": "synapse-onnx"} | {
            name: value for name, value in asdict(self).items() if name != "source"
        }


#: framework -> how it steps
CONVENTIONS: Mapping[str, Convention] = {
    "nir": Convention(),
    "synapse-onnx": Convention(source="what the graph says of itself"),
    "snntorch": Convention(
        reset="delayed",
        zero_behind="delayed_zero",
        source="snntorch 1.0: export_nir.py (dt, tau = dt / (1 - beta)); neurons subtract the "
        "threshold in the next step unless told otherwise, which the export does not say; with "
        "reset_mechanism='zero' all but Leaky lose the input of the next step",
    ),
    "norse": Convention(
        dt=1e-3,
        tau_unit=1e3,
        arrives="jump",
        integrate="step",
        rest="v_leak",
        source="norse 1.1: utils/export_nir.py writes tau = dt / tau_inv, with its default dt a "
        "thousandth of 1 / tau_inv; functional/lif.py adds an input to the current at once, "
        "functional/iaf.py to the voltage; voltages start from the leak",
    ),
    "spikingjelly": Convention(
        strict=False,
        rest="v_reset",
        source="spikingjelly 2.0: nir_exchange/to_nir.py (dt); a neuron spikes at its threshold",
    ),
    "sinabs": Convention(
        dt=1.0,
        integration="exponential",
        reset="subtract",
        strict=False,
        readout_enters="whole",
        source="sinabs 3.1: nir.py writes time constants in steps, and not norm_input, which LIF "
        "has unless told otherwise and ExpLeak has not; its neurons may spike several times in a "
        "step, which is not reproduced",
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
        "bias; lif_torch.py adds the input to the current, lets both states decay, and adds the "
        "current to the voltage; its neurons may spike several times in a step, which is not "
        "reproduced",
    ),
}
