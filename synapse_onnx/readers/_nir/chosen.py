"""By which convention a graph is read: what is given, what the file says, and what is assumed.

What is given to ``load_nir`` comes first, then what the graph's metadata say, then what its numbers
show, then what the framework does by default. Only the last is assumed, and said in a warning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from synapse_onnx.errors import InputError
from synapse_onnx.readers._fields import located
from synapse_onnx.readers._nir.convention import CONVENTIONS, Convention
from synapse_onnx.readers._nir.node import as_text

__all__ = ["Chosen", "choose"]

_SPIKING = {"IF", "LIF", "CubaLIF"}
_LEAKY = {"LIF", "CubaLIF", "LI", "CubaLI"}
#: nodes whose reading depends on dt, for frameworks that scale nothing by it themselves
_TIMED = _LEAKY | {"Delay"}

#: the version of Norse that writes tau = dt / tau_inv, with this dt unless its to_nir got another:
#: https://github.com/norse/norse/issues/411, mended by https://github.com/norse/norse/pull/413
_NORSE_SCALED, _NORSE_DT = (1, 1, 0), 1e-3

#: longest time step, in time constants, that a graph of Rockpool is believed: r = 1 is 0.57
_LONGEST_STEP = 0.5


class _Option(NamedTuple):
    """A field that a framework lets its users choose and that its graphs do not carry.

    Attributes:
        field: of the convention.
        kinds: the nodes for which it matters.
        remark: what it is called there.
    """

    field: str
    kinds: Iterable[str]
    remark: str = ""


#: framework -> what its graphs leave open
_OPTIONS: Mapping[str, tuple[_Option, ...]] = {
    "nir": (_Option("dt", _TIMED | {"I", "IF"}),),
    "snntorch": (_Option("reset", _SPIKING, "reset_mechanism='subtract', reset_delay=True"),),
    "norse": (
        _Option("dt", _TIMED),
        _Option("reset", _SPIKING, "to v_reset, whose value 1.1.0 does not write"),
    ),
    "spikingjelly": (_Option("dt", _TIMED | {"I", "IF"}, "that of its exporter"),),
    "sinabs": (
        _Option("reset", _SPIKING, "MembraneSubtract"),
        _Option("max_spikes", _SPIKING, "MultiSpike"),
        _Option("min_v_mem", {"IF"}, "-v_threshold, as in from_nir"),
        _Option("enters", {"LIF"}, "norm_input=True"),
        _Option("readout_enters", {"LI"}, "norm_input=False"),
    ),
    "rockpool": (
        _Option("max_spikes", _SPIKING, "max_spikes_per_dt"),
        _Option("dt", _LEAKY),
    ),
    "synapse-onnx": (),
}


class Chosen(NamedTuple):
    """The convention of a graph, and sentences about what of it is assumed."""

    convention: Convention
    assumed: tuple[str, ...]


def choose(
    file: str,
    metadata: Any,
    nodes: Mapping[str, Any],
    framework: str,
    version: str,
    given: Mapping[str, Any],
) -> Chosen:
    """Return the convention by which a graph is read.

    Args:
        file: the file, for errors.
        metadata: those of the graph.
        nodes: its ``nir.NIRNode`` objects, by name, without subgraphs.
        framework: the framework that wrote it, or "".
        version: its version, or "".
        given: fields of the convention; None and "" are not given.

    Raises:
        InputError: a framework, a version, a field or the metadata cannot be right.
    """
    metadata = metadata if isinstance(metadata, Mapping) else {}
    metadata = {str(key).lower(): value for key, value in metadata.items()}
    said = as_text(metadata.get("framework", metadata.get("generator", ""))).lower()
    if framework and framework not in CONVENTIONS:
        raise InputError(f"framework must be one of {', '.join(CONVENTIONS)}, got {framework!r}")
    name = framework or _named(said)
    base = CONVENTIONS[name or "nir"]
    with located(file, "the graph's metadata"):
        convention = base.with_metadata(metadata)
    convention = convention.with_values(**given)
    settled = {key for key, value in given.items() if value is not None and value != ""}
    settled |= base.fields_of(metadata)
    numbers = _version(file, version, metadata, said if name and name in said else "")
    kinds = {type(node).__name__ for node in nodes.values()}
    assumed = []
    if name == "norse" and "tau_unit" not in settled and kinds & _LEAKY:
        scaled, why = _norse_scales(numbers, convention.dt, nodes)
        convention = convention.with_values(tau_unit=1 / _NORSE_DT if scaled else 1.0)
        assumed += [f"{file} does not say which version of Norse wrote it; {why}"] if why else []
    if name == "rockpool" and "dt" not in settled:
        dt = _rockpool_dt(nodes)
        if dt is not None:
            convention, settled = convention.with_values(dt=dt), settled | {"dt"}
    assumed += _options(file, name, convention, kinds, settled)
    return Chosen(convention, tuple(assumed))


def _named(said: str) -> str:
    """Return the framework that a text names; "" for none.

    The longest name that occurs: "nir" is part of "snntorch's nir export".
    """
    names = (name for name in CONVENTIONS if name in said.replace(" ", ""))
    return max(names, key=len, default="")


def _options(
    file: str, name: str, convention: Convention, kinds: set[str], settled: set[str]
) -> list[str]:
    """Say what is assumed of the options that graphs do not carry; nothing where nothing is."""
    taken = [
        _value_text(option, getattr(convention, option.field))
        for option in _OPTIONS[name or "nir"]
        if option.field not in settled and kinds & set(option.kinds)
    ]
    if not name and kinds & (_TIMED | {"I", "IF", "CubaLI"}):
        also = f", with {', '.join(taken)}" if taken else ""
        return [
            f"{file} does not say which framework wrote it; assumed framework='nir', the equations "
            f"of NIR by the Euler method{also}; give framework= to load_nir"
        ]
    if not taken:
        return []
    return [
        f"{file}: graphs of {name} leave options open; assumed {', '.join(taken)}; give load_nir "
        f"what was set otherwise"
    ]


def _value_text(option: _Option, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    unit = " s" if option.field == "dt" else ""
    remark = f" ({option.remark})" if option.remark else ""
    return f"{option.field}={text}{unit}{remark}"


def _version(
    file: str, version: str, metadata: Mapping[str, Any], said: str
) -> tuple[int, ...] | None:
    """Return the version of the framework that wrote a graph; None where nothing says it."""
    if version:
        numbers = _numbers(version)
        if numbers is None:
            raise InputError(f"version must be numbers with dots, as in 1.1.0, got {version!r}")
        return numbers
    if not said:
        return None
    stated = metadata.get("framework_version", metadata.get("version", said))
    return _numbers(as_text(stated))


def _numbers(text: str) -> tuple[int, ...] | None:
    found = re.search(r"\d+(\.\d+)+", text)
    if found is None:
        return None
    return (*map(int, found[0].split(".")), 0)


def _norse_scales(
    version: tuple[int, ...] | None, dt: float, nodes: Mapping[str, Any]
) -> tuple[bool, str]:
    """Return whether Norse scaled the time constants of a graph, and why if that is assumed."""
    if version is not None:
        return version[:3] == _NORSE_SCALED, ""
    taus = _values(nodes, "tau", "tau_mem", "tau_syn")
    if len(taus) and taus.min() < dt * (1 - 1e-6):
        return True, (
            f"assumed 1.1.0, which writes tau = dt / tau_inv, for tau = {taus.min():g} is shorter "
            f"than a time step of {dt:g} s; give version= to load_nir"
        )
    return False, (
        f"assumed another than 1.1.0, one that writes tau = 1 / tau_inv, for no tau is shorter "
        f"than a time step of {dt:g} s; give version= to load_nir"
    )


def _rockpool_dt(nodes: Mapping[str, Any]) -> float | None:
    """Return the time step with which Rockpool wrote r = tau exp(-dt / tau) / dt.

    None where the neurons have none in common.
    """
    steps = []
    for node in nodes.values():
        tau = getattr(node, "tau_mem", getattr(node, "tau", None))
        if type(node).__name__ not in _LEAKY or tau is None:
            continue
        pairs = zip(_numbers_of(tau), _numbers_of(getattr(node, "r", None)), strict=False)
        steps += [_step_of(tau, r) for tau, r in pairs]
    if not steps or any(step is None for step in steps):
        return None
    found = np.array(steps, np.float64)
    middle = float(np.median(found))
    if np.abs(found - middle).max() > 1e-3 * middle:
        return None
    short = float(f"{middle:.4g}")
    return short if abs(short - middle) <= 1e-6 * middle else middle  # r is a float32


def _step_of(tau: float, r: float) -> float | None:
    """Solve r = tau exp(-dt / tau) / dt for dt, by Newton's method for q exp(q) = 1 / r."""
    if not (tau > 0 and r > 1e-9 and math.isfinite(tau) and math.isfinite(r)):
        return None
    q = math.log1p(1 / r)
    for _ in range(30):
        q -= (q - math.exp(-q) / r) / (q + 1)
    return q * tau if q < _LONGEST_STEP else None


def _values(nodes: Mapping[str, Any], *names: str) -> Any:
    """Return the positive finite values of some parameters of all nodes."""
    found = [_numbers_of(getattr(node, name, None)) for node in nodes.values() for name in names]
    values = np.concatenate([np.zeros(0), *found])
    return values[np.isfinite(values) & (values > 0)]


def _numbers_of(value: Any) -> Any:
    """Return a parameter as a flat array; an empty one where it holds no numbers."""
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if np.iscomplexobj(value):
        return np.zeros(0)
    try:
        return np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.zeros(0)
