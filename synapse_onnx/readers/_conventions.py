"""What the frameworks that write NIR mean by it: time step, integration, reset.

NIR states differential equations; which difference equations a framework runs, it does not say. The
parameters of a node become those of :class:`synapse_onnx.neuron.lif.Neuron` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.errors import InputError
from synapse_onnx.neuron.lif import RESETS

__all__ = ["CONVENTIONS", "Convention"]

Array = NDArray[np.float64]

INTEGRATIONS = ("euler", "exponential")


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
        jump: whether an input is added to the synaptic current at once, not spread by
            dt / tau_syn.
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
    jump: bool = False
    integrate: str = "dt"
    rest: str = "zero"
    source: str = "NIR's equations, by the Euler method"

    def decay(self, tau: Array) -> Array:
        """Return the fraction of a state that is lost in a step."""
        steps = self.dt / (tau * self.tau_unit)
        return steps if self.integration == "euler" else -np.expm1(-steps)

    def changed(self, **given: Any) -> Convention:
        """Return this convention with other values, those that are not None or empty.

        Raises:
            InputError: a value is none of those that there are.
        """
        values = {name: value for name, value in given.items() if value not in (None, "")}
        found = replace(self, **values)
        if not (np.isfinite(found.dt) and found.dt > 0):
            raise InputError(f"dt must be a finite number of seconds > 0, got {found.dt}")
        for name, known in (("integration", INTEGRATIONS), ("reset", RESETS)):
            if getattr(found, name) not in known:
                raise InputError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(found, name)!r}"
                )
        return found

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
        jump=True,
        integrate="step",
        rest="v_leak",
        source="norse 1.1: utils/export_nir.py writes tau = dt / tau_inv, a thousandth of 1 / "
        "tau_inv; functional/lif.py adds an input to the current at once, functional/iaf.py to "
        "the voltage; voltages start from the leak",
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
        source="sinabs 3.1: nir.py writes time constants in steps; its neurons may spike several "
        "times in a step, which is not reproduced",
    ),
    "rockpool": Convention(
        dt=1e-3,
        integration="exponential",
        reset="subtract",
        source="rockpool 3.1: nn/modules/torch/nir.py; neurons keep exp(-dt / tau)",
    ),
}
