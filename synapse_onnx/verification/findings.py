"""What one call of ``verify`` collects: rows, problems, notes, the first divergence, rasters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.model.layout import has_time
from synapse_onnx.report.coverage import BranchCoverage
from synapse_onnx.report.result import Divergence, Membrane, Raster, Report, Row
from synapse_onnx.verification.exercise import Exercise

__all__ = ["Findings"]


class Findings:
    """Collects what is found, in the order in which it is found.

    Attributes:
        outputs: one row an output, by name.
        layers: one row a layer, by name.
        divergence: the first divergence of all.
        membrane: the membrane around it.
        unproved: why the file is judged by the run alone; "" for one that is not.
        exercise: what the inputs of all runs have exercised.
        probed: by what each layer was compared alone on generated inputs.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, Row] = {}
        self.layers: dict[str, Row] = {}
        self.divergence: Divergence | None = None
        self.membrane: Membrane | None = None
        self._problems: dict[str, None] = {}  # in order, each once
        self._notes: dict[str, None] = {}
        self.unproved = ""
        self.exercise = Exercise()
        self.probed: list[str] = []
        self._rasters: dict[str, Raster] = {}
        #: of an output: the most values that were NaN in one run, and whether any was a number
        self._nan: dict[str, tuple[int, bool]] = {}

    def problem(self, sentence: str) -> None:
        """Report that something besides values is wrong: the result is not equal then."""
        self._problems[sentence] = None

    def failures(self) -> list[str]:
        """Return a sentence for everything that is not as it should be, so far."""
        rows = [*self.layers.values(), *self.outputs.values()]
        wrong = [str(row.first or f"{row.name}: states differ") for row in rows if not row.ok]
        return [*self._problems, *wrong]

    def by_run_alone(self, reason: str) -> None:
        """Report that the file is not proved by construction, and why."""
        self.unproved = reason

    def saw_nan(self, name: str, count: int, size: int) -> None:
        """Take note of the values of an output that are NaN on both sides, in one run."""
        most, any_number = self._nan.get(name, (0, False))
        self._nan[name] = max(most, count), any_number or not size or count < size

    def _judge_nan(self) -> None:
        """Report outputs that were NaN; where no output has a number, nothing was compared."""
        nothing = not any(any_number for _, any_number in self._nan.values())
        for name, (count, any_number) in self._nan.items():
            both = f"{name}: NaN in {count} values of torch and of the model, in the same places"
            if nothing:
                self.problem(f"{both}, which are all; give inputs on which it has numbers")
            elif count:
                self.note(both if any_number else f"{both}, which are all: it was not compared")

    def note(self, sentence: str) -> None:
        """Report how the comparison was made."""
        self._notes[sentence] = None

    def diverged(
        self,
        label: str,
        reference: NDArray[Any],
        array: NDArray[Any],
        where: tuple[int, ...],
        margin: float | None = None,
    ) -> Divergence:
        """Describe the place at which a value diverges; the first of all is the report's."""
        timed = has_time(reference.ndim)
        divergence = Divergence(
            layer=label,
            sample=int(where[0]) if where else 0,
            neuron=tuple(int(i) for i in (where[1:-1] if timed else where[1:])),
            t=int(where[-1]) if timed else None,
            margin=margin,
            expected=float(reference[where]),
            found=float(array[where]),
        )
        if self.divergence is None:
            self.divergence = divergence
        return divergence

    def keep_raster(
        self,
        name: str,
        reference: NDArray[Any],
        array: NDArray[Any],
        first: tuple[int, ...] | None,
    ) -> None:
        """Keep the spikes of a layer or output: of the first run, unless only a later one differs.

        The first run has the inputs as given, which show the most.
        """
        known = self._rasters.get(name)
        if has_time(reference.ndim) and (known is None or (first and not known.differs)):
            self._rasters[name] = Raster.of(name, reference, array, first)

    def holds_spikes(self, name: str, values: NDArray[Any], *, layer: bool = False) -> bool:
        """Whether an output, or that of a ``layer``, holds 0 and 1 alone, in all runs so far."""
        known = (self.layers if layer else self.outputs).get(name)
        binary = values.dtype.kind == "f" and bool(np.isin(values, (0.0, 1.0)).all())
        # one that is cut short may be silent, and is no spike train for that
        return binary and (known is None or known.spike_flips is not None)

    @staticmethod
    def add(rows: dict[str, Row], row: Row) -> None:
        """Add a row to the outputs or the layers; joined with that of other inputs, if any."""
        known = rows.get(row.name)
        rows[row.name] = row if known is None else known.joined(row)

    def report(
        self,
        shapes: Sequence[Sequence[tuple[int, ...]]],
        facts: dict[str, str],
        branches: Sequence[BranchCoverage],
        left_out: Sequence[str],
        layers_left_out: Sequence[str],
    ) -> Report:
        """Return the report: with these, what was found; see :class:`Report`."""
        self._judge_nan()
        outputs, layers = tuple(self.outputs.values()), tuple(self.layers.values())
        flips = [row.spike_flips for row in layers if row.spike_flips is not None]
        if not flips:
            flips = [row.spike_flips for row in outputs if row.spike_flips is not None]
        rows_ok = all(row.ok for row in (*outputs, *layers))
        return Report(
            ok=not self._problems and bool(outputs) and rows_ok,
            max_abs_diff=max((row.max_abs_diff for row in outputs), default=float("inf")),
            spike_flips=sum(flips),
            first_divergence=self.divergence,
            outputs=outputs,
            layers=layers,
            problems=tuple(self._problems),
            shapes=tuple(map(tuple, shapes)),
            notes=tuple(self._notes),
            by_run_alone=self.unproved,
            coverage=self.exercise.coverage(),
            states=self.exercise.states(),
            probed=tuple(self.probed),
            branches=tuple(branches),
            membrane=self.membrane,
            rasters=tuple(self._rasters.values()),
            facts=facts,
            left_out=tuple(left_out),
            layers_left_out=tuple(layers_left_out),
        )
