"""``synapse-onnx bench``: time a model on this machine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, product
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from synapse_onnx.cli import _options as options
from synapse_onnx.cli._inputs import generated_inputs, read_inputs
from synapse_onnx.cli._output import print_facts, print_table, progress
from synapse_onnx.errors import InputError
from synapse_onnx.model.layout import has_time, time_first

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
        provider, native: execution provider, and whether native kernels were registered.
        threads: threads inside an operator; None is ONNX Runtime's own choice.
        batch, steps: samples and time steps in a call.
        calls: calls that were timed.
        p50, p90, p99, best: median, percentiles, and the fastest call.
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
    return Timing(
        **setting,
        calls=len(times),
        p50=p50 * 1e3,
        p90=p90 * 1e3,
        p99=p99 * 1e3,
        best=min(times) * 1e3,
        samples_per_s=setting["batch"] / p50,
        steps_per_s=setting["batch"] * setting["steps"] / p50,
    )


def _size(views: Sequence[Array]) -> tuple[int, int]:
    """Return samples and time steps of inputs with time last; one step where none has time."""
    batch = views[0].shape[0] if views[0].ndim else 1
    return int(batch), min((view.shape[-1] for view in views if has_time(view.ndim)), default=1)


def _calls(session: Session, views: Sequence[Array], stream: bool) -> list[Callable[[], Any]]:
    """Return what is timed call by call: a whole sequence, or the steps of a stream."""
    if not stream:
        return [partial(session.run, *(time_first(view, session.layout) for view in views))]
    batch, steps = _size(views)
    step = session.stream(batch).step
    return [
        partial(step, *(np.ascontiguousarray(v[..., t]) if has_time(v.ndim) else v for v in views))
        for t in range(steps)
    ]


@click.command(
    "bench",
    epilog="""\b
Example: portable and native, one thread and two
  synapse-onnx bench net.onnx --native both --threads 1 --threads 2
  synapse-onnx bench stream.onnx --stream --json""",
)
@options.model
@options.inputs(
    "Input, as for `run`: one file for every input of the model. Default: random 0/1 spikes."
)
@click.option(
    "--batch",
    "batches",
    type=options.COUNT,
    multiple=True,
    help="Samples per call (repeatable; default: 1).",
)
@options.generated(steps=100, rate=0.1)
@click.option(
    "--threads",
    type=options.COUNT,
    multiple=True,
    help="Threads inside an operator (repeatable; default: ONNX Runtime's own choice).",
)
@click.option(
    "--seconds",
    type=options.Number(0),
    default=2.0,
    help="Seconds for each row of the table; at least 5 calls are timed.",
)
@click.option("--stream", is_flag=True, help="Time single steps of a streaming model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@options.providers()
@options.native("both", help="; both times the model with and without them")
@options.quiet
def command(
    model: str,
    inputs: tuple[str, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
    stream: bool,
    as_json: bool,
    providers: tuple[str, ...],
    native: str,
    quiet: bool,
    **generated: Any,
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
        examples = [read_inputs(proto, inputs)]
    else:
        examples = [
            generated_inputs(proto, samples=batch, **generated) for batch in batches or (1,)
        ]
    settings: list[dict[str, Any]] = []
    turns = []
    names = options.full_names(providers) or ["CPUExecutionProvider"]
    for name, choice, count in product(names, options.native_choices(native), threads or (None,)):
        session = Session(proto, [name], choice, threads=count)
        row = {"provider": name, "native": session.native, "threads": count}
        for views in examples:
            batch, length = _size(views)
            settings.append({**row, "batch": batch, "steps": 1 if stream else length})
            turns.append(_calls(session, views, stream))
    times = _take_turns(turns, seconds, quiet=quiet)
    rows = [summary(taken, **setting) for taken, setting in zip(times, settings, strict=True)]
    import onnxruntime

    facts = {
        "model": model,
        "ONNX Runtime": onnxruntime.__version__,
        "processors": os.cpu_count() or 1,
    }
    if as_json:
        click.echo(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print_facts({**{k: str(v) for k, v in facts.items()}, **_shared(rows)})
    click.echo()
    _print_rows(rows)


def _take_turns(
    turns: Sequence[Sequence[Callable[[], Any]]], seconds: float, *, quiet: bool
) -> list[list[float]]:
    """Take turns until the time for all is spent; return the seconds of every call of each."""
    for _ in range(_WARM):
        begin = perf_counter()
        for call in chain(*turns):
            call()
    times: list[list[float]] = [[] for _ in turns]
    now, whole = perf_counter(), seconds * len(turns)
    rounds = max(math.ceil(whole / (now - begin)), _FEWEST)  # a guess, for the bar alone
    end = now + whole
    with progress(rounds * len(turns), "calls", quiet=quiet) as advance:
        while perf_counter() < end or len(times[0]) < _FEWEST:
            for calls, taken in zip(turns, times, strict=True):
                for call in calls:
                    begin = perf_counter()
                    call()
                    taken.append(perf_counter() - begin)
                advance(1)
    return times


def _shared(rows: Sequence[Timing]) -> dict[str, str]:
    """Return the values that all rows share: shown above the table, which then fits 80 columns."""
    steps = {"time steps": str(rows[0].steps)}
    provider, *others = {row.provider.removesuffix("ExecutionProvider") for row in rows}
    return steps if others else {"provider": provider, **steps}


def _print_rows(rows: Sequence[Timing]) -> None:
    right = ("threads", "batch", "p50 ms", "p90", "p99", "min", "samples/s", "steps/s")
    shared = _shared(rows)
    cells = [
        [
            "" if "provider" in shared else row.provider.removesuffix("ExecutionProvider"),
            "native" if row.native else "portable",
            "" if row.threads is None else str(row.threads),
            str(row.batch),
            *(f"{t:.3f}" if t < 10 else f"{t:.1f}" for t in (row.p50, row.p90, row.p99, row.best)),
            *(f"{n:,.0f}" if n >= 10 else f"{n:.2g}" for n in (row.samples_per_s, row.steps_per_s)),
        ]
        for row in rows
    ]
    print_table(("provider", "kernels", *right), cells, right)
