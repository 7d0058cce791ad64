"""``python -m benchmarks``: time exported networks beside what else runs them."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import synapse_onnx as so
from benchmarks import _costs as costs
from benchmarks import _loops as found_loops
from benchmarks._measure import exponent, machine, memory_now, peak_memory, turns, write_json
from benchmarks._networks import Network, networks
from benchmarks.contestants import UnsupportedError, contestants_found
from benchmarks.contestants.by_hand import activations
from benchmarks.contestants.ours import build

NETWORKS = networks()
console = Console(highlight=False)

#: what a measurement of a network gives: a row of the JSON file, and the same in words
Rows = Iterator[tuple[dict[str, Any], str]]


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


COUNT = click.IntRange(min=1)
EVERY = "".join(NETWORKS)
native = click.option(
    "--native/--portable", "kernels", default=None, is_flag=True,
    help="With native kernels, or without; with them where there are any.",
)  # fmt: skip


def time_and_file(seconds: float) -> Callable[[Any], Any]:
    """Give a command the options --seconds, with this default, and --json."""
    options = (
        click.option("--seconds", default=seconds, help="Time for a row or column of the table."),
        click.option(
            "--json", "path", type=click.Path(dir_okay=False), help="Write the figures there."
        ),
    )
    return lambda command: options[0](options[1](command))


def which(only: str) -> Callable[[Any], Any]:
    """Give a command the options of one that measures networks, these by default."""
    options = (
        click.option("--only", default=only, help="Letters of the networks."),
        click.option("--numbers", type=click.Choice(["q8", "float", "both"]), default="both"),
    )
    return lambda command: options[0](options[1](time_and_file(2.0)(command)))


def of_networks(only: str) -> Callable[[Callable[..., Rows]], click.Command]:
    """Make a command of what measures one network: run on these networks unless others are named.

    It prints every row as soon as it is there, and writes all as JSON where a path is given.
    """

    def decorate(measure: Callable[..., Rows]) -> click.Command:
        @functools.wraps(measure)
        def command(only: str, numbers: str, path: str | None, **given: Any) -> None:
            rows = []
            for network in chosen(only, numbers):
                for row, text in measure(network, **given):
                    rows.append({"network": network.id, "numbers": network.numbers, **row})
                    console.print(f"{network.id} {network.numbers}: {text}")
            if path:
                write_json(path, {measure.__name__: rows})

        return main.command(measure.__name__)(which(only)(command))

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Measure exported networks; every figure is a median of one run on this machine."""
    facts = machine()
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    where = f"{facts['processor']}, {facts['cores']} cores, {' '.join(facts['instructions'])}"
    console.print(f"[dim]{where}; {versions}[/]")


@main.command("networks")
@click.option("--batch", "batches", default="1,4,8,32", callback=sizes)
@click.option("--steps", type=int, help="Time steps, instead of each network's own.")
@which(EVERY)
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
            ms = {name: 1000 * value for name, value in turns(runs, seconds).items()}
            rows.append(
                {
                    "network": network.id, "title": network.title, "numbers": network.numbers,
                    "batch": batch, "steps": spikes.shape[-1], "rate": rate, "flips": flips,
                    "ms": ms,
                }
            )  # fmt: skip
            console.print(
                f"[dim]{network.id} {network.numbers} N={batch}, {rate:.1%} of outputs spike, "
                f"{flips} differ from torch: {listed(ms)} ms[/]"
            )
    for network in chosen(only, numbers):
        print_network(
            [r for r in rows if (r["network"], r["numbers"]) == (network.id, network.numbers)]
        )
    for name, contestant in contestants.items():
        why = f"; left out at times: {reasons[name]}" if name in reasons else ""
        console.print(f"[bold]{name}[/]: {contestant.computes}{why}")
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


def listed(figures: Mapping[Any, float]) -> str:
    """Write figures in a line."""
    return ", ".join(f"{name} {value:.2f}" for name, value in figures.items())


def print_table(title: str, heads: Iterable[str], rows: Mapping[str, Iterable[str]]) -> None:
    """Print a table; every row has a name."""
    shown = Table("", title=title, box=SIMPLE_HEAD, padding=(0, 1), title_justify="left")
    for head in heads:
        shown.add_column(head, justify="right")
    for name, cells in rows.items():
        shown.add_row(name, *cells)
    console.print(shown)


def print_network(rows: Sequence[dict[str, Any]]) -> None:
    """Print milliseconds, and how many times as long as our two ways to run, of every batch."""
    heads: list[str] = []
    cells: dict[str, list[str]] = {name: [] for row in rows for name in row["ms"]}
    for row in rows:
        ms = row["ms"]
        ours = [name for name in ("onnx", "native") if name in ms]
        heads += [f"N={row['batch']} ms", *(f"/ {name}" for name in ours)]
        for name, line in cells.items():
            took = ms.get(name)
            if took is None:
                line.extend(["-"] * (1 + len(ours)))
            else:
                line.extend([f"{took:.2f}", *(f"{took / ms[own]:.1f}" for own in ours)])
    first = rows[0]
    title = f"{first['network']} {first['numbers']}: {first['title']}, T = {first['steps']}"
    print_table(title, heads, cells)


@of_networks("a")
@click.option("--time", "lengths", default="10,100,1000,10000", callback=sizes)
@click.option("--batch", "batches", default="1,8,64,256", callback=sizes)
@native
def growth(
    network: Network, lengths: list[int], batches: list[int], kernels: bool | None, seconds: float
) -> Rows:
    """Time against T (at N = 1) and N (at T = 100), with the exponent between the largest."""
    session = so.Session(so.export(build(network), network.spikes(1, 4)), native=kernels)
    for axis, values in (("T", lengths), ("N", batches)):
        times = {}
        for value in values:
            spikes = network.spikes(1, value) if axis == "T" else network.spikes(value, 100)
            run = {"onnx": functools.partial(session.run, spikes.numpy())}
            times[value] = 1000 * turns(run, seconds / 4)["onnx"]
        ms = list(times.values())
        row = {"axis": axis, "native": session.native, "sizes": values, "ms": ms,
               "exponent": exponent(values, ms)}  # fmt: skip
        yield row, f"ms at {axis} = {listed(times)}; exponent {row['exponent']:.2f}"


@of_networks("a")
@click.option("--steps", default=5000, type=click.IntRange(min=10))
@native
def stream(network: Network, steps: int, kernels: bool | None, seconds: float) -> Rows:
    """Latency of one streamed step: p50 and p99; first and last tenth; how memory grew between."""
    del seconds  # the number of steps says how long it takes
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
    p50, p99 = np.percentile(times, (50, 99))
    first, last = np.median(times[:tenth]), np.median(times[-tenth:])
    row = {"steps": steps, "native": session.native, "p50_us": p50, "p99_us": p99,
           "first_tenth_us": first, "last_tenth_us": last, "grown_kb": grown / 1000}  # fmt: skip
    text = f"p50 {p50:.0f} us, p99 {p99:.0f} us; first tenth {first:.0f}, last {last:.0f}"
    yield row, f"{text}; memory {grown / 1000:+.0f} kB"


@of_networks(EVERY)
@click.option("--batch", default=1, type=COUNT)
@click.option("--steps", type=int, help="Time steps, instead of each network's own.")
@native
def memory(
    network: Network, batch: int, steps: int | None, kernels: bool | None, seconds: float
) -> Rows:
    """Peak memory of a process that runs the file, above one that has ONNX Runtime loaded.

    Beside it stands 1.5 times (input, output, largest activation), and the file.
    """
    del seconds  # each is done once
    spikes = network.spikes(batch, steps)
    model = so.export(build(network), spikes[:1, ..., :4])
    sizes = [x.numel() for x in activations(network, spikes)]
    allowed = (1.5 * 4 * (sizes[0] + sizes[-1] + max(sizes)) + model.ByteSize()) / 1e6
    above = peak_memory(model, spikes.numpy(), kernels) / 1e6
    row = {"batch": batch, "steps": spikes.shape[-1], "above_idle_mb": above, "allowed_mb": allowed}
    text = f"{above:.1f} MB above idle; 1.5 times (input, output, largest activation), and the file"
    yield row, f"{text}: {allowed:.1f} MB"


@of_networks(EVERY)
@click.option("--time", "lengths", default="10,10000", callback=sizes)
def export(network: Network, lengths: list[int], seconds: float) -> Rows:
    """Time of export (for examples of several lengths) and of loading, and size of the file."""
    del seconds  # each is done once
    module, took = build(network), {}
    for length in lengths:
        spikes = network.spikes(1, length)
        start = time.perf_counter()
        model = so.export(module, spikes)
        took[str(length)] = time.perf_counter() - start
    start = time.perf_counter()
    so.Session(model)
    load, size = time.perf_counter() - start, model.ByteSize()
    row = {"export_s": took, "load_s": load, "bytes": size}
    yield row, f"export, s at T = {listed(took)}; load {load:.2f} s; {size / 1e6:.2f} MB"


@of_networks("abcd")
@click.option("--batch", default=1, type=COUNT)
def options(network: Network, batch: int, seconds: float) -> Rows:
    """Time of a run under ONNX Runtime's options, its memory pattern among them."""
    spikes = network.spikes(batch)
    model = so.export(build(network), spikes[:1, ..., :4])
    ms = costs.options(model, spikes.numpy(), seconds)
    yield {"batch": batch, "ms": ms}, f"N={batch}, ms: {listed(ms)}"


def give_costs(
    key: str, title: str, found: Mapping[int, dict[str, float]], path: str | None
) -> None:
    """Print measurements, a column a size, and write them as JSON where a path is given."""
    names = next(iter(found.values()))
    rows = {name: [f"{us[name]:.2f}" for us in found.values()] for name in names}
    print_table(title, (f"{size:,}" for size in found), rows)
    if path:
        write_json(path, {key: {str(size): figures for size, figures in found.items()}})


@main.command()
@click.option("--neurons", default="512,16384", callback=sizes)
@time_and_file(2.0)
def nodes(neurons: list[int], seconds: float, path: str | None) -> None:
    """Microseconds of single nodes in a loop over time, which neurons are made of."""
    found = {count: costs.nodes(count, seconds) for count in neurons}
    give_costs("nodes", "us a step, by number of neurons", found, path)


@main.command()
@click.option("--inputs", default=512, type=COUNT)
@click.option("--outputs", default="10,32,128,256,512", callback=sizes)
@click.option("--steps", default=300, type=COUNT)
@time_and_file(1.0)
def dense(inputs: int, outputs: list[int], steps: int, seconds: float, path: str | None) -> None:
    """Microseconds of a dense product: of floats, of bytes with and without a look at the input."""
    found = {count: costs.dense(inputs, count, steps, seconds) for count in outputs}
    give_costs("dense", f"us, {inputs} inputs, T = {steps}, by outputs", found, path)


@main.command()
@click.option("--only", default="", help="Part of the names of the synapses.")
@click.option("--rate", default=0.1, type=click.FloatRange(0, 1))
@click.option("--batch", default=1, type=COUNT)
@click.option("--steps", default=50, type=COUNT)
@time_and_file(1.0)
def images(
    only: str, rate: float, batch: int, steps: int, seconds: float, path: str | None
) -> None:
    """Milliseconds of quantised synapses over images of spikes: by the body, by the kernel."""
    names = [name for name in costs.SYNAPSES if only in name]
    if not names:
        raise click.BadParameter(f"there are {'; '.join(costs.SYNAPSES)}; got {only!r}")
    try:
        found = {name: costs.images(name, rate, batch, steps, seconds) for name in names}
    except so.SynapseError as error:
        raise click.ClickException(str(error)) from error
    rows = {
        name: [f"{ms['body']:.2f}", f"{ms['kernel']:.2f}", f"{ms['body'] / ms['kernel']:.1f}"]
        for name, ms in found.items()
    }
    title = f"ms, 16 x 16 pixels, T = {steps}, N = {batch}, {rate:.0%} of inputs spike"
    print_table(title, ("body", "kernel", "ratio"), rows)
    if path:
        write_json(path, {"images": found})


@main.command()
@click.option("--neurons", default="512,16384", callback=sizes)
@click.option("--batch", default=1, type=COUNT)
@click.option("--steps", default=100, type=COUNT)
@time_and_file(2.0)
def norm(neurons: list[int], batch: int, steps: int, seconds: float, path: str | None) -> None:
    """Milliseconds of CUBA with a norm: within its op, and between two integrators."""
    found = {count: costs.norm(count, batch, steps, seconds) for count in neurons}
    give_costs("norm", f"ms, T = {steps}, N = {batch}, by number of neurons", found, path)


@main.command()
@click.option("--steps", default=16, type=COUNT)
@time_and_file(4.0)
def traces(steps: int, seconds: float, path: str | None) -> None:
    """Milliseconds of an export that is traced on numbers, or by torch.export."""
    names = (found_loops.LAYERS, *found_loops.NETWORKS)
    found = {name: found_loops.exports(name, steps, seconds) for name in names}
    rows = {
        name: [
            *(f"{each:.0f}" for each in ms.values()),
            f"{ms['torch.export'] / ms['on numbers']:.1f}",
        ]
        for name, ms in found.items()
    }
    print_table(f"ms, T = {steps}", ("on numbers", "torch.export", "ratio"), rows)
    if path:
        write_json(path, {"traces": found})


@main.command()
@click.option("--only", default="", help="Part of the names of the networks.")
@click.option("--batch", "batches", default="1,8", callback=sizes)
@click.option("--steps", default=50, type=COUNT)
@click.option("--threads", default=1, type=COUNT)
@click.option("--alone", is_flag=True, help="Time of one thread: others may use the machine.")
@time_and_file(4.0)
def loops(
    only: str,
    batches: list[int],
    steps: int,
    threads: int,
    alone: bool,
    seconds: float,
    path: str | None,
) -> None:
    """Milliseconds of found loops, without native kernels, beside torch's unrolled export."""
    names = [name for name in found_loops.NETWORKS if only in name]
    if not names:
        raise click.BadParameter(f"there are {'; '.join(found_loops.NETWORKS)}; got {only!r}")
    if alone and threads > 1:
        raise click.BadParameter("--alone times one thread; leave out --threads")
    clock = time.thread_time if alone else time.perf_counter
    rows, written = {}, {}
    for name in names:
        found = found_loops.measure(name, batches, steps, threads, seconds, clock)
        written[name] = {str(batch): figures for batch, figures in found.items()}
        for batch, ms in found.items():
            cells = [f"{ms['loop']:.2f}", f"{ms['unrolled']:.2f}"]
            ratio = f"{ms['loop'] / ms['unrolled']:.2f}"
            rows[f"{name}, N = {batch}"] = [*cells, ratio, f"{ms['flips']:.0f}"]
    title = f"ms, T = {steps}, threads: {threads}"
    print_table(title, ("loop", "unrolled", "ratio", "flips"), rows)
    if path:
        write_json(path, {"loops": written})


if __name__ == "__main__":
    sys.exit(main(prog_name="python -m benchmarks"))
