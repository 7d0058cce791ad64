"""``synapse-onnx bench``: time a model on this machine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli._arrays import read_arrays
from synapse_onnx.cli._models import generated_inputs, inputs_of, layout_of
from synapse_onnx.cli._options import (
    Number,
    full_names,
    generated_options,
    inputs_option,
    native_choices,
    native_option,
    provider_option,
    quiet_option,
)
from synapse_onnx.cli._output import make_console, print_facts, print_table, progress
from synapse_onnx.errors import InputError
from synapse_onnx.model.layout import has_time, time_first, time_last

if TYPE_CHECKING:
    from synapse_onnx.runtime.session import Session

__all__ = ["Timing", "command", "summary"]

Array = NDArray[Any]

#: runs before the first that counts, and the fewest that count
_WARM, _FEWEST = 2, 5


@dataclass(frozen=True)
class Timing:
    """Latencies of one setting, in ms, and the throughput that follows.

    Attributes:
        provider: execution provider.
        native: whether native kernels were registered.
        threads: threads inside an operator; None is ONNX Runtime's own choice.
        batch: samples in a call.
        steps: time steps in a call.
        calls: calls that were timed.
        p50: median.
        p90: 90th percentile.
        p99: 99th percentile.
        best: the fastest call.
        samples_per_s: samples by the median; of a stream those of one step.
        steps_per_s: time steps of all samples by the median.
    """

    provider: str
    native: bool
    threads: int | None
    batch: int
    steps: int
    calls: int
    p50: float
    p90: float
    p99: float
    best: float
    samples_per_s: float
    steps_per_s: float


def summary(times: Sequence[float], **setting: Any) -> Timing:
    """Summarise the seconds that calls of one setting took.

    Args:
        times: seconds, one a call.
        setting: provider, native, threads, batch and steps of :class:`Timing`.
    """
    p50, p90, p99 = (float(np.percentile(times, part)) for part in (50, 90, 99))
    batch, steps = setting["batch"], setting["steps"]
    return Timing(
        **setting,
        calls=len(times),
        p50=p50 * 1e3,
        p90=p90 * 1e3,
        p99=p99 * 1e3,
        best=min(times) * 1e3,
        samples_per_s=batch / p50,
        steps_per_s=batch * steps / p50,
    )


def _size(views: Sequence[Array]) -> tuple[int, int]:
    """Return samples and time steps of inputs with time last; one step where none has time."""
    batch = views[0].shape[0] if views[0].ndim else 1
    return int(batch), min((view.shape[-1] for view in views if has_time(view.ndim)), default=1)


def _whole(session: Session, views: Sequence[Array]) -> Callable[[], Iterator[float]]:
    """Time whole sequences."""
    arrays = [time_first(view, session.layout) for view in views]

    def call() -> Iterator[float]:
        begin = perf_counter()
        session.run(*arrays)
        yield perf_counter() - begin

    return call


def _steps(session: Session, views: Sequence[Array]) -> Callable[[], Iterator[float]]:
    """Time the steps of a stream, each by itself."""
    batch, steps = _size(views)
    cut = [
        [np.ascontiguousarray(view[..., t]) if has_time(view.ndim) else view for view in views]
        for t in range(steps)
    ]
    stream = session.stream(batch)

    def call() -> Iterator[float]:
        for step in cut:
            begin = perf_counter()
            stream.step(*step)
            yield perf_counter() - begin

    return call


@click.command(
    "bench",
    epilog="""\b
Example: portable and native, one thread and two
  synapse-onnx bench net.onnx --native both --threads 1 --threads 2
  synapse-onnx bench stream.onnx --stream --json""",
)
@click.argument("model", metavar="MODEL.onnx")
@inputs_option(
    "Input, as for `run`: one file for every input of the model. Default: random 0/1 spikes.",
    required=False,
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    help="Samples per call (repeatable; default: 1).",
)
@generated_options(steps=100, rate=0.1)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    help="Threads inside an operator (repeatable; default: ONNX Runtime's own choice).",
)
@click.option(
    "--seconds",
    type=Number(0),
    default=2.0,
    show_default=True,
    help="Seconds for each row of the table; at least 5 calls are timed.",
)
@click.option("--stream", is_flag=True, help="Time single steps of a streaming model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@provider_option()
@native_option("both", help="; both times the model with and without them")
@quiet_option
def command(
    model: str,
    inputs: tuple[str, ...],
    batches: tuple[int, ...],
    steps: int,
    rate: float,
    seed: int,
    threads: tuple[int, ...],
    seconds: float,
    stream: bool,
    as_json: bool,
    providers: tuple[str, ...],
    native: str,
    quiet: bool,
) -> None:
    """Time a model: latency percentiles and throughput.

    Every combination of --provider, --native, --threads and --batch is one row. Calls of all rows
    are interleaved, so that other load on the machine affects them equally. Needs ONNX Runtime,
    but not torch.
    """
    from synapse_onnx.model.file import load_model
    from synapse_onnx.runtime.session import Session

    if inputs and batches:
        raise InputError("--batch is for generated spikes, and --input brings its own batch")
    proto = load_model(model)
    if inputs:
        arrays = read_arrays(inputs, list(inputs_of(proto)))
        batches_of_views = [[time_last(array, layout_of(proto)) for array in arrays]]
    else:
        batches_of_views = [
            generated_inputs(proto, samples=batch, steps=steps, rate=rate, seed=seed)
            for batch in batches or (1,)
        ]
    settings: list[dict[str, Any]] = []
    calls: list[Callable[[], Iterator[float]]] = []
    names = full_names(providers) or ["CPUExecutionProvider"]
    for name, choice, count in product(names, native_choices(native), threads or (None,)):
        session = Session(proto, [name], choice, threads=count)
        for views in batches_of_views:
            batch, length = _size(views)
            settings.append(
                {
                    "provider": name,
                    "native": session.native,
                    "threads": count,
                    "batch": batch,
                    "steps": 1 if stream else length,
                }
            )
            calls.append((_steps if stream else _whole)(session, views))
    times = _take_turns(calls, seconds, quiet=quiet)
    rows = [summary(taken, **setting) for taken, setting in zip(times, settings, strict=True)]
    if as_json:
        click.echo(json.dumps({**_facts(model), "rows": [asdict(row) for row in rows]}, indent=2))
        return
    console = make_console()
    print_facts(console, {**{k: str(v) for k, v in _facts(model).items()}, **_shared(rows)})
    console.print()
    _print_rows(rows)


def _take_turns(
    calls: Sequence[Callable[[], Iterator[float]]], seconds: float, *, quiet: bool = True
) -> list[list[float]]:
    """Call each in turn until the time for all is spent; return the seconds of every call."""
    for _ in range(_WARM):
        begin = perf_counter()
        for call in calls:
            list(call())
    times: list[list[float]] = [[] for _ in calls]
    now, whole = perf_counter(), seconds * len(calls)
    rounds = max(math.ceil(whole / (now - begin)), _FEWEST)  # a guess, for the bar alone
    end = now + whole
    with progress(rounds * len(calls), "calls", quiet=quiet) as advance:
        while perf_counter() < end or len(times[0]) < _FEWEST:
            for call, taken in zip(calls, times, strict=True):
                taken.extend(call())
                advance(1)
    return times


def _facts(model: str) -> dict[str, Any]:
    import onnxruntime

    return {
        "model": model,
        "ONNX Runtime": onnxruntime.__version__,
        "processors": os.cpu_count() or 1,
    }


def _provider(row: Timing) -> str:
    return row.provider.removesuffix("ExecutionProvider")


def _shared(rows: Sequence[Timing]) -> dict[str, str]:
    """Return the values that all rows share: shown above the table, which then fits 80 columns."""
    providers = {_provider(row) for row in rows}
    provider = {"provider": providers.pop()} if len(providers) == 1 else {}
    return {**provider, "time steps": str(rows[0].steps)}


def _print_rows(rows: Sequence[Timing]) -> None:
    left = ("provider", "kernels")
    right = ("threads", "batch", "p50 ms", "p90", "p99", "min", "samples/s", "steps/s")
    shared = _shared(rows)
    print_table(
        {**dict.fromkeys(left, "left"), **dict.fromkeys(right, "right")},
        [
            [
                "" if "provider" in shared else _provider(row),
                "native" if row.native else "portable",
                "" if row.threads is None else str(row.threads),
                str(row.batch),
                *map(_short, (row.p50, row.p90, row.p99, row.best)),
                *map(_per_second, (row.samples_per_s, row.steps_per_s)),
            ]
            for row in rows
        ],
    )


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _per_second(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
