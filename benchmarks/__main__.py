"""``python -m benchmarks``: time exported networks beside what else runs them."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import synapse_onnx as so
from benchmarks._contest import UnsupportedError, contestants_found
from benchmarks._images import SYNAPSES, image_costs
from benchmarks._measure import (
    exponent,
    machine,
    memory_now,
    peak_memory,
    percentile,
    turns,
    write_json,
)
from benchmarks._micro import dense_costs, node_costs, option_runs
from benchmarks._modules import build
from benchmarks._networks import Network, networks
from benchmarks._norm import norm_costs
from benchmarks.contestants.plain_loop import activations

NETWORKS = networks()
console = Console()


def sizes(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """Read "1,8" as numbers."""
    try:
        found = [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"expected whole numbers such as 1,8, got {value!r}") from error
    if min(found) < 1:
        raise click.BadParameter(f"expected numbers of at least 1, got {value!r}")
    return found


def chosen(letters: str, numbers: str) -> list[Network]:
    """Return networks by their letters, in q8 and in float."""
    unknown = sorted(set(letters) - set(NETWORKS))
    if unknown or not letters:
        raise click.BadParameter(f"there are networks {', '.join(NETWORKS)}; got {letters!r}")
    kinds = ("q8", "float") if numbers == "both" else (numbers,)
    both = {letter: (NETWORKS[letter].in_q8(), NETWORKS[letter]) for letter in letters}
    return [network for pair in both.values() for network in pair if network.numbers in kinds]


common = [
    click.option("--numbers", type=click.Choice(["q8", "float", "both"]), default="both"),
    click.option("--seconds", default=2.0, show_default=True, help="Time for a row of the table."),
    click.option(
        "--json", "path", type=click.Path(dir_okay=False), help="Write the figures there."
    ),
]


native = click.option(
    "--native/--portable", "kernels", default=None, is_flag=True,
    help="With native kernels, or without; with them where there are any.",
)  # fmt: skip


def with_common(command: Any) -> Any:
    """Give a command the options that all have."""
    for option in reversed(common):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure exported networks; every figure is a median of one run on this machine."""
    facts = machine()
    console.print(
        f"[dim]{facts['processor']}, {facts['cores']} cores, {' '.join(facts['instructions'])}; "
        f"{', '.join(f'{name} {number}' for name, number in facts['versions'].items())}[/]"
    )


@main.command("networks")
@click.option("--only", default="".join(NETWORKS), help="Letters of the networks.")
@click.option("--batch", "batches", default="1,4,8,32", show_default=True, callback=sizes)
@click.option("--steps", type=int, help="Time steps, instead of each network's own.")
@with_common
def compare(
    only: str, batches: list[int], steps: int | None, numbers: str, seconds: float, path: str | None
) -> None:
    """Compare with torch, a plain loop and other frameworks; figures are ms, and ratios to onnx."""
    contestants = contestants_found()
    rows = []
    reasons: dict[str, str] = {}
    for network in chosen(only, numbers):
        for batch in batches:
            spikes = network.spikes(batch, steps)
            runs: dict[str, Any] = {}
            for name, contestant in contestants.items():
                try:
                    runs[name] = contestant.make(network, spikes)
                except UnsupportedError as error:
                    reasons.setdefault(name, str(error))
            rate, flips = check(network, runs)
            times = turns(runs, seconds)
            rows.append(
                {
                    "network": network.id, "title": network.title, "numbers": network.numbers,
                    "batch": batch, "steps": spikes.shape[-1], "rate": rate, "flips": flips,
                    "ms": {name: 1000 * value for name, value in times.items()},
                }
            )  # fmt: skip
            show_row(rows[-1])
    table(rows, list(contestants))
    for name, contestant in contestants.items():
        why = f"; left out at times: {reasons[name]}" if name in reasons else ""
        console.print(f"[bold]{name}[/]: {contestant.computes}{why}", highlight=False)
    if path:
        write_json(path, {"networks": rows, "left_out": reasons})


def check(network: Network, runs: dict[str, Any]) -> tuple[float, int]:
    """Compare the file's spikes with torch's; return the share of ones, and how many differ.

    Raises:
        click.ClickException: a q8 network gives other spikes.
    """
    expected = np.asarray(runs["torch"]())
    flips = int((np.asarray(runs["onnx"]()) != expected).sum())
    if network.numbers == "q8" and flips:
        raise click.ClickException(f"network {network.id} q8: {flips} spikes differ from torch's")
    return float(expected.mean()), flips


def show_row(row: dict[str, Any]) -> None:
    """Print a row as soon as it is there; the table follows at the end."""
    times = ", ".join(f"{name} {value:.2f}" for name, value in row["ms"].items())
    console.print(
        f"[dim]{row['network']} {row['numbers']} N={row['batch']}, {row['rate']:.1%} of outputs "
        f"spike, {row['flips']} differ from torch: {times} ms[/]", highlight=False,
    )  # fmt: skip


def table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print a table a network: milliseconds, and how many times as long as our two ways to run."""
    ours = ("onnx", "native")
    for network, numbers in dict.fromkeys((row["network"], row["numbers"]) for row in rows):
        chosen = [r for r in rows if (r["network"], r["numbers"]) == (network, numbers)]
        shown = Table(
            title=f"{network} {numbers}: {chosen[0]['title']}, T = {chosen[0]['steps']}",
            box=SIMPLE_HEAD, padding=(0, 1), title_justify="left",
        )  # fmt: skip
        shown.add_column("", no_wrap=True)
        for row in chosen:
            shown.add_column(f"N={row['batch']} ms", justify="right")
            for name in ours:
                if name in row["ms"]:
                    shown.add_column(f"/ {name}", justify="right")
        for name in names:
            cells = []
            for row in chosen:
                took = row["ms"].get(name)
                cells.append("-" if took is None else f"{took:.2f}")
                cells += [
                    "-" if took is None else f"{took / row['ms'][own]:.1f}"
                    for own in ours
                    if own in row["ms"]
                ]
            shown.add_row(name, *cells)
        console.print(shown)


@main.command()
@click.option("--only", default="a", show_default=True, help="Letters of the networks.")
@click.option("--time", "lengths", default="10,100,1000,10000", show_default=True, callback=sizes)
@click.option("--batch", "batches", default="1,8,64,256", show_default=True, callback=sizes)
@native
@with_common
def growth(
    only: str, lengths: list[int], batches: list[int], kernels: bool | None, numbers: str,
    seconds: float, path: str | None,
) -> None:  # fmt: skip
    """Time against T (at N = 1) and N (at T = 100), with the exponent between the largest."""
    rows = []
    for network in chosen(only, numbers):
        model = so.export(build(network), network.spikes(1, 4))
        session = so.Session(model, native=kernels)
        for axis, values in (("T", lengths), ("N", batches)):
            times = []
            for value in values:
                shape = (1, value) if axis == "T" else (value, 100)
                array = network.spikes(*shape).numpy()
                times.append(
                    turns({"onnx": functools.partial(session.run, array)}, seconds / 4)["onnx"]
                )
            row = {"network": network.id, "numbers": network.numbers, "axis": axis,
                   "native": session.native,
                   "sizes": values, "ms": [1000 * t for t in times],
                   "exponent": exponent(values, times)}  # fmt: skip
            rows.append(row)
            pairs = ", ".join(f"{v}: {1000 * t:.2f}" for v, t in zip(values, times, strict=True))
            console.print(
                f"{network.id} {network.numbers} ms at {axis} = {pairs}; "
                f"exponent {row['exponent']:.2f}", highlight=False,
            )  # fmt: skip
    if path:
        write_json(path, {"growth": rows})


@main.command()
@click.option("--only", default="a", show_default=True, help="Letters of the networks.")
@click.option("--steps", default=5000, show_default=True, type=click.IntRange(min=10))
@native
@with_common
def stream(
    only: str, steps: int, kernels: bool | None, numbers: str, seconds: float, path: str | None
) -> None:
    """Latency of one streamed step: p50 and p99; first and last tenth; how memory grew between."""
    del seconds  # the number of steps says how long it takes
    rows = []
    for network in chosen(only, numbers):
        model = so.export(build(network), network.spikes(1, 4), streaming=True)
        session = so.Session(model, native=kernels)
        running = session.stream()
        spikes = network.spikes(1, 64).numpy()
        frames = [np.ascontiguousarray(spikes[..., t]) for t in range(spikes.shape[-1])]
        for frame in frames:
            running.step(frame)
        tenth = steps // 10
        times = np.ones(steps)  # in memory now, so that it is not seen to grow
        for t in range(steps):
            if t == tenth:
                before = memory_now()
            start = time.perf_counter()
            running.step(frames[t % len(frames)])
            times[t] = 1e6 * (time.perf_counter() - start)
        grown = memory_now() - before
        row = {"network": network.id, "numbers": network.numbers, "steps": steps,
               "native": session.native,
               "p50_us": percentile(times, 0.5), "p99_us": percentile(times, 0.99),
               "first_tenth_us": percentile(times[:tenth], 0.5),
               "last_tenth_us": percentile(times[-tenth:], 0.5),
               "grown_kb": grown / 1000}  # fmt: skip
        rows.append(row)
        console.print(
            f"{network.id} {network.numbers}: p50 {row['p50_us']:.0f} us, p99 "
            f"{row['p99_us']:.0f} us; first tenth {row['first_tenth_us']:.0f}, last "
            f"{row['last_tenth_us']:.0f}; memory {row['grown_kb']:+.0f} kB", highlight=False,
        )  # fmt: skip
    if path:
        write_json(path, {"stream": rows})


@main.command()
@click.option("--only", default="".join(NETWORKS), help="Letters of the networks.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", type=int, help="Time steps, instead of each network's own.")
@native
@with_common
def memory(
    only: str,
    batch: int,
    steps: int | None,
    kernels: bool | None,
    numbers: str,
    seconds: float,
    path: str | None,
) -> None:
    """Peak memory of a process that runs the file, above one that has ONNX Runtime loaded.

    Beside it stands 1.5 times (input, output, largest activation), and the file.
    """
    del seconds  # each is done once
    rows = []
    for network in chosen(only, numbers):
        spikes = network.spikes(batch, steps)
        model = so.export(build(network), spikes[:1, ..., :4])
        sizes = activations(network, spikes)
        needed = 1.5 * 4 * (sizes[0] + sizes[-1] + max(sizes)) + model.ByteSize()
        row = {"network": network.id, "numbers": network.numbers, "batch": batch,
               "steps": spikes.shape[-1],
               "above_idle_mb": peak_memory(model, spikes.numpy(), kernels) / 1e6,
               "allowed_mb": needed / 1e6}  # fmt: skip
        rows.append(row)
        console.print(
            f"{network.id} {network.numbers}: {row['above_idle_mb']:.1f} MB above idle; 1.5 times "
            f"(input, output, largest activation), and the file: {row['allowed_mb']:.1f} MB",
            highlight=False,
        )
    if path:
        write_json(path, {"memory": rows})


@main.command()
@click.option("--only", default="".join(NETWORKS), help="Letters of the networks.")
@click.option("--time", "lengths", default="10,10000", show_default=True, callback=sizes)
@with_common
def export(only: str, lengths: list[int], numbers: str, seconds: float, path: str | None) -> None:
    """Time of export (for examples of several lengths) and of loading, and size of the file."""
    del seconds  # each is done once
    rows = []
    for network in chosen(only, numbers):
        module, took = build(network), {}
        for length in lengths:
            spikes = network.spikes(1, length)
            start = time.perf_counter()
            model = so.export(module, spikes)
            took[str(length)] = time.perf_counter() - start
        start = time.perf_counter()
        so.Session(model)
        row = {"network": network.id, "numbers": network.numbers, "export_s": took,
               "load_s": time.perf_counter() - start, "bytes": model.ByteSize()}  # fmt: skip
        rows.append(row)
        lines = ", ".join(f"T={length}: {value:.2f} s" for length, value in took.items())
        console.print(
            f"{network.id} {network.numbers}: export {lines}; load {row['load_s']:.2f} s; "
            f"{model.ByteSize() / 1e6:.2f} MB", highlight=False,
        )  # fmt: skip
    if path:
        write_json(path, {"export": rows})


@main.command()
@click.option("--only", default="abcd", show_default=True, help="Letters of the networks.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@with_common
def options(only: str, batch: int, numbers: str, seconds: float, path: str | None) -> None:
    """Time of a run under ONNX Runtime's options, its memory pattern among them."""
    rows = []
    for network in chosen(only, numbers):
        spikes = network.spikes(batch)
        data = so.export(build(network), spikes[:1, ..., :4]).SerializeToString()
        times = turns(option_runs(data, spikes.numpy()), seconds)
        row = {"network": network.id, "numbers": network.numbers, "batch": batch,
               "ms": {name: 1000 * value for name, value in times.items()}}  # fmt: skip
        rows.append(row)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in row["ms"].items())
        console.print(f"{network.id} {network.numbers} N={batch}, ms: {shown}", highlight=False)
    if path:
        write_json(path, {"options": rows})


def print_costs(title: str, heads: Sequence[str], found: Sequence[dict[str, float]]) -> None:
    """Print microseconds, a column a measurement."""
    shown = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1))
    shown.add_column("")
    for head in heads:
        shown.add_column(head, justify="right")
    for name in found[0]:
        shown.add_row(name, *(f"{column[name]:.2f}" for column in found))
    console.print(shown)


def give_costs(
    key: str, title: str, found: Mapping[int, dict[str, float]], path: str | None
) -> None:
    """Print measurements, a column a size, and write them as JSON where a path is given."""
    print_costs(title, [f"{size:,}" for size in found], list(found.values()))
    if path:
        write_json(path, {key: {str(size): costs for size, costs in found.items()}})


@main.command()
@click.option("--neurons", default="512,16384", show_default=True, callback=sizes)
@click.option("--seconds", default=2.0, show_default=True, help="Time for a column.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the figures there.")
def nodes(neurons: list[int], seconds: float, path: str | None) -> None:
    """Microseconds of single nodes in a loop over time, which neurons are made of."""
    found = {count: node_costs(count, seconds) for count in neurons}
    give_costs("nodes", "us a step, by number of neurons", found, path)


@main.command()
@click.option("--inputs", default=512, show_default=True, type=click.IntRange(min=1))
@click.option("--outputs", default="10,32,128,256,512", show_default=True, callback=sizes)
@click.option("--steps", default=300, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=1.0, show_default=True, help="Time for a column.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the figures there.")
def dense(inputs: int, outputs: list[int], steps: int, seconds: float, path: str | None) -> None:
    """Microseconds of a dense product: of floats, of bytes with and without a look at the input."""
    found = {count: dense_costs(inputs, count, steps, seconds) for count in outputs}
    give_costs("dense", f"us, {inputs} inputs, T = {steps}, by outputs", found, path)


@main.command()
@click.option("--only", default="", help="Part of the names of the synapses.")
@click.option("--rate", default=0.1, show_default=True, type=click.FloatRange(0, 1))
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=1.0, show_default=True, help="Time for a row of the table.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the figures there.")
def images(
    only: str, rate: float, batch: int, steps: int, seconds: float, path: str | None
) -> None:
    """Milliseconds of quantised synapses over images of spikes: by the body, by the kernel."""
    names = [name for name in SYNAPSES if only in name]
    if not names:
        raise click.BadParameter(f"there are {'; '.join(SYNAPSES)}; got {only!r}")
    try:
        found = {name: image_costs(name, rate, batch, steps, seconds) for name in names}
    except so.SynapseError as error:
        raise click.ClickException(str(error)) from error
    shown = Table(
        title=f"ms, 16 x 16 pixels, T = {steps}, N = {batch}, {rate:.0%} of inputs spike",
        box=SIMPLE_HEAD, padding=(0, 1),
    )  # fmt: skip
    shown.add_column("")
    for head in ("body", "kernel", "ratio"):
        shown.add_column(head, justify="right")
    for name, took in found.items():
        ratio = took["body"] / took["kernel"]
        shown.add_row(name, *(f"{took[way]:.2f}" for way in took), f"{ratio:.1f}")
    console.print(shown)
    if path:
        write_json(path, {"images": found})


@main.command()
@click.option("--neurons", default="512,16384", show_default=True, callback=sizes)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=2.0, show_default=True, help="Time for a column.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the figures there.")
def norm(neurons: list[int], batch: int, steps: int, seconds: float, path: str | None) -> None:
    """Milliseconds of CUBA with a norm: within its op, and between two integrators."""
    found = {count: norm_costs(count, batch, steps, seconds) for count in neurons}
    give_costs("norm", f"ms, T = {steps}, N = {batch}, by number of neurons", found, path)


if __name__ == "__main__":
    sys.exit(main(prog_name="python -m benchmarks"))
