"""What a comparison of torch and ONNX Runtime finds: rows, the first divergence, spikes.

Plain data, its text and its JSON. The page (``report/page.py``) and the figures
(``report/plot.py``) are drawn from it: they import this module, and it imports neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.report.coverage import (
    BranchCoverage,
    Coverage,
    StateRange,
    branches_taken,
    gaps,
    largest_states,
)

__all__ = ["NEURONS", "STEPS", "Divergence", "Membrane", "Raster", "Report", "Row", "writes_html"]

#: most neurons and time steps that a raster keeps
NEURONS, STEPS = 96, 400


@dataclass(frozen=True)
class Divergence:
    """The first place at which torch and ONNX Runtime differ by more than is allowed.

    Attributes:
        layer: path of the layer, or name of the output.
        sample: index in the batch.
        neuron: index of the neuron, (channel,) or (channel, row, column).
        t: time step; None where the value has no time axis.
        margin: how far the membrane was above the threshold in torch, in units of the
            threshold; None for currents.
        expected: torch's value.
        found: ONNX Runtime's value.
    """

    layer: str
    sample: int
    neuron: tuple[int, ...]
    t: int | None
    margin: float | None
    expected: float
    found: float

    @property
    def place(self) -> str:
        """Sample, neuron and time, as text."""
        when = "" if self.t is None else f", t={self.t}"
        return f"sample {self.sample}, neuron {self.neuron}{when}"

    def __str__(self) -> str:
        near = "" if self.margin is None else f", membrane {self.margin:+.3g} from the threshold"
        values = f"torch {self.expected:g}, ONNX Runtime {self.found:g}"
        return f"{self.layer}: {self.place}: {values}{near}"


@dataclass(frozen=True)
class Membrane:
    """The membrane of one neuron around its first divergence, in units of its threshold.

    Torch computes both curves. Where they coincide and the spikes differ, the neuron is at fault;
    where they part, its input is.

    Attributes:
        start: time step of the first value.
        on_torch: distance above the threshold, on the currents that the neuron has in torch.
        on_runtime: the same on the currents that it had in ONNX Runtime.
    """

    start: int
    on_torch: tuple[float, ...]
    on_runtime: tuple[float, ...]


@dataclass(frozen=True)
class Raster:
    """Spikes of one layer on both sides: a bounded part of one sample.

    Attributes:
        name: path of the layer, or name of the output.
        sample: index in the batch.
        neurons: flat index of the neuron of each row; those that differ are among them.
        start: time step of the first column.
        size: neurons and time steps of the whole layer.
        torch: (rows, columns) bool, where torch spikes.
        runtime: (rows, columns) bool, where ONNX Runtime spikes.
    """

    name: str
    sample: int
    neurons: tuple[int, ...]
    start: int
    size: tuple[int, int]
    torch: NDArray[np.bool_]
    runtime: NDArray[np.bool_]

    @classmethod
    def of(
        cls, name: str, torch: NDArray[Any], runtime: NDArray[Any], first: Sequence[int] | None
    ) -> Raster:
        """Cut a raster from spikes (N, C[, H, W], T), around the first place that differs."""
        sample = int(first[0]) if first else 0
        columns = torch.shape[-1]
        sides = [
            np.reshape(side[sample : sample + 1], (-1, columns)) != 0 for side in (torch, runtime)
        ]
        start = 0
        if first:  # a quarter of the picture shows what came before it
            start = min(max(int(first[-1]) - STEPS // 4, 0), max(columns - STEPS, 0))
        window = [side[:, start : start + STEPS] for side in sides]
        differs = (window[0] != window[1]).any(axis=1)
        busy = window[0].any(axis=1)
        # those that differ, then those that spike, then the others; kept in their own order
        order = np.lexsort((np.arange(len(differs)), ~busy, ~differs))[:NEURONS]
        rows = np.sort(order)
        return cls(
            name,
            sample,
            tuple(int(row) for row in rows),
            start,
            (len(differs), columns),
            window[0][rows],
            window[1][rows],
        )

    @property
    def differs(self) -> bool:
        """Whether any of these spikes is on one side alone."""
        return not np.array_equal(self.torch, self.runtime)

    def shows_as(self, other: Raster) -> bool:
        """Whether another raster shows the same spikes."""
        same = np.array_equal(self.torch, other.torch)
        return same and np.array_equal(self.runtime, other.runtime)


@dataclass(frozen=True)
class Row:
    """Comparison of one layer or output.

    Attributes:
        name: path of the layer, or name of the output.
        kind: "output", "stream", or class of the layer.
        exact: whether equality was demanded.
        ok: whether the demand was met.
        max_abs_diff: largest difference; inf where one side is NaN and the other is not.
        tolerance: largest difference allowed.
        spike_flips: values that differ, of a layer or output that spikes; None for currents.
        values: number of values compared.
        spikes: values that are not zero, in torch and in ONNX Runtime; None for currents.
        first: the first place that differs by more than is allowed, or None.
    """

    name: str
    kind: str
    exact: bool
    ok: bool
    max_abs_diff: float
    tolerance: float
    spike_flips: int | None
    values: int
    spikes: tuple[int, int] | None = None
    first: Divergence | None = None

    @property
    def demand(self) -> str:
        """What was demanded: "equal", or the largest difference allowed."""
        return "equal" if self.exact else f"{self.tolerance:.1e}"

    def joined(self, other: Row) -> Row:
        """Return this row and that of the same layer on inputs of another shape as one."""
        flips = [row.spike_flips for row in (self, other) if row.spike_flips is not None]
        spikes = [row.spikes for row in (self, other) if row.spikes is not None]
        return replace(
            other,
            exact=self.exact and other.exact,
            ok=self.ok and other.ok,
            max_abs_diff=max(self.max_abs_diff, other.max_abs_diff),
            tolerance=max(self.tolerance, other.tolerance),
            spike_flips=sum(flips) if flips else None,
            values=self.values + other.values,
            spikes=(sum(s[0] for s in spikes), sum(s[1] for s in spikes)) if spikes else None,
            first=self.first or other.first,
        )


@dataclass(frozen=True, repr=False)
class Report:
    """Result of :func:`verify`: a table as text, a page in a notebook and by :meth:`to_html`.

    Attributes:
        ok: whether every comparison met its demand.
        max_abs_diff: largest difference of any output.
        spike_flips: spikes that differ, in all spiking layers; in the outputs where the network
            has no layer of ours.
        first_divergence: the first place that differs, or None.
        outputs: one row an output.
        layers: one row a layer, in the order in which they ran.
        problems: sentences on what is wrong besides values: names, shapes, types.
        shapes: input shapes that were run.
        notes: sentences on how the comparison was made.
        by_run_alone: why the file is not proved to be what its network compiles to, so that only
            the run speaks for it; "" for a file that is.
        coverage: what the inputs reached of every input, spiking layer and output.
        states: how large the states of neurons in fixed point became.
        probed: by what each layer was compared alone on generated inputs: "function bodies",
            "native kernels".
        branches: the branches of the function bodies, and which of them were taken.
        membrane: the membrane around the first divergence, where that is a spike.
        rasters: spikes of every spiking layer and output, a bounded part of one sample.
        facts: the model, its SHA-256, versions, execution providers and native kernels.
        left_out: outputs that were not compared, as the caller chose others.
        layers_left_out: layers that were not compared, for they feed those outputs alone.
    """

    ok: bool
    max_abs_diff: float
    spike_flips: int
    first_divergence: Divergence | None
    outputs: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    notes: tuple[str, ...] = ()
    by_run_alone: str = ""
    coverage: tuple[Coverage, ...] = ()
    states: tuple[StateRange, ...] = ()
    probed: tuple[str, ...] = ()
    branches: tuple[BranchCoverage, ...] = ()
    membrane: Membrane | None = None
    rasters: tuple[Raster, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    layers_left_out: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """Return "equal", or "equal in part" where outputs were left out, or "NOT equal".

        "by the run alone" is added where the file is not proved by construction.
        """
        if not self.ok:
            return "NOT equal"
        equal = "equal in part" if self.left_out else "equal"
        return f"{equal} by the run alone" if self.by_run_alone else equal

    @property
    def verdict(self) -> str:
        """Return the outcome, and what no input has exercised: "equal, but 1 layer never ..."."""
        if self.ok and self.not_exercised:
            return f"{self.outcome}, but {self.not_exercised}"
        return self.outcome

    @property
    def not_exercised(self) -> str:
        """What no input has exercised, so that the run says nothing of it; or ""."""
        return gaps(self.coverage)

    @property
    def not_compared(self) -> str:
        """The outputs and layers that were left out, as text; "" where there are none."""
        parts = (("outputs", self.left_out), ("layers", self.layers_left_out))
        return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names)

    @property
    def inside(self) -> list[str]:
        """Sentences on what went on inside the layers: states, branches, generated inputs."""
        probed = f"each layer alone on generated inputs: by {' and '.join(self.probed)}"
        return [
            *largest_states(self.states),
            *([probed] if self.probed else []),
            *branches_taken(self.branches),
        ]

    @property
    def ran(self) -> str:
        """The input shapes that were run, as text."""
        return "; ".join(" and ".join(map(str, shapes)) for shapes in self.shapes)

    @property
    def shown_rasters(self) -> list[Raster]:
        """The rasters of the layers, and of those outputs that show other spikes than a layer."""
        layers = {row.name for row in self.layers}
        shown = [raster for raster in self.rasters if raster.name in layers]
        for raster in self.rasters:
            if raster.name not in layers and not any(raster.shows_as(other) for other in shown):
                shown.append(raster)
        return shown

    def to_json(self) -> str:
        """Return everything but the rasters as JSON; infinite differences are the text "inf"."""
        document = asdict(replace(self, rasters=()))  # not copied, only to be left out
        del document["rasters"]
        return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """Return one self-contained page: verdict, first divergence, tables, rasters, versions."""
        return _html_writers[-1](self, True)

    def _repr_html_(self) -> str:
        return _html_writers[-1](self, False)

    def __repr__(self) -> str:
        parts = [
            self.verdict,
            f"{len(self.layers)} layers",
            f"max_abs_diff={self.max_abs_diff:g}",
            f"spike_flips={self.spike_flips}",
        ]
        if self.left_out:
            parts.append(f"not compared: {self.not_compared}")
        if self.first_divergence is not None:
            parts.append(f"first divergence at {self.first_divergence}")
        return f"Report({', '.join(parts)})"

    def __str__(self) -> str:
        rows = [*self.layers, *self.outputs]
        width = max([len(row.name) for row in rows] + [5])
        kind = max([len(row.kind) for row in rows] + [4])
        margins = [row.first.margin if row.first else None for row in rows]
        shown = any(margin is not None for margin in margins)  # of the first flip
        lines = [
            f"  {'layer':<{width}}  {'kind':<{kind}}  demand     max|diff|   flips      values"
            + "      margin" * shown
        ]
        for row, margin in zip(rows, margins, strict=True):
            flips = "" if row.spike_flips is None else str(row.spike_flips)
            lines.append(
                f"{'✓' if row.ok else '✗'} {row.name:<{width}}  {row.kind:<{kind}}  "
                f"{row.demand:<9} {row.max_abs_diff:>10.3g}  {flips:>6}  {row.values:>10}"
                + ("" if margin is None else f"  {margin:>+10.3g}")
            )
        lines += [f"✗ {problem}" for problem in self.problems]
        if self.first_divergence is not None:
            lines.append(f"first divergence: {self.first_divergence}")
        lines += [f"note: {note}" for note in self.notes]
        if self.coverage:
            lines.append(f"active at some step: {', '.join(map(str, self.coverage))}")
        lines += self.inside
        if self.by_run_alone:
            lines.append(f"by the run alone: {self.by_run_alone}")
        if self.left_out:
            lines.append(f"not compared: {self.not_compared}")
        comma = ";" if self.ok and self.not_exercised else ""
        lines.append(f"{self.verdict}{comma} on inputs of shape {self.ran}")
        return "\n".join(lines)


HtmlWriter = Callable[[Report, bool], str]
_html_writers: list[HtmlWriter] = []


def writes_html(function: HtmlWriter) -> HtmlWriter:
    """Make a function the one that writes a report as HTML: a whole page, or its body alone.

    A report offers its page, and the page is written from a report. So that the two modules do not
    import each other, ``report/page.py`` registers itself here; ``report/__init__.py`` imports it.
    """
    _html_writers.append(function)
    return function


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by text: "inf", "nan"."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
