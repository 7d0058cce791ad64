"""Run exported networks in other runtimes and compare every value with ONNX Runtime's.

    python tests/runtimes.py --write    # measure; the table goes into docs/reference/runtimes.md
    python tests/runtimes.py --check    # measure, and say where the page differs

Networks are the committed models and small ones: every neuron in every regime, every synapse, whole
and streaming. Runtimes are ONNX's reference evaluator and OpenVINO on the CPU, which needs the
extra runtimes. `--only cuba` measures the rows whose name has that in it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import io
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx.inliner
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import synapse_onnx as so
from synapse_onnx._layer import Stateful
from synapse_onnx.quantize import q8

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "runtimes.md"
MARKS = "<!-- python tests/runtimes.py --write -->", "<!-- end -->"
SHOWN = ("onnx", "onnxruntime", "openvino", "numpy")
BATCH, STEPS = 2, 24

#: what a committed model is given, by the name of its input; spikes where it has no entry
SIGNALS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "sound": lambda g, shape: np.sin(np.arange(shape[-1]) / 3 + g.random(shape)),
    "light": lambda g, shape: g.random(shape),
}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """A network: its name in the table, and what makes the model."""

    name: str
    model: Callable[[], onnx.ModelProto]


# -- networks ------------------------------------------------------------------------------------


def rows() -> list[Row]:
    """Return every network of the table."""
    files = sorted((ROOT / "models").glob("*.onnx"))
    found = [Row(f"`{path.name}`", functools.partial(onnx.load, path)) for path in files]
    small: dict[str, Callable[[], nn.Module]] = {}
    images: set[str] = set()
    for kind, module in so.neuron.kinds().items():
        equation = getattr(module.Neuron, "equation", None)
        for regime in ("slayer", "loihi") if equation is None else equation.regimes:
            small[f"`{kind}`, {regime}"] = functools.partial(_neurons, kind, regime)
    for family, where in ((so.synapse, "`"), (so.synapse.complex, "`complex.")):
        for name in ("Dense", "Conv", "ConvTranspose", "Pool", "Unpool"):
            for weights, hook in (("8 bits", q8), ("floats", None)):
                make = functools.partial(_synapse, getattr(family, name), hook)
                small[f"{where}{name}`, {weights}"] = make
                if name != "Dense":
                    images.add(f"{where}{name}`, {weights}")
    small["`Recurrent` of `cuba`"] = functools.partial(_feedback, "Recurrent")
    small["`KWTA` of `cuba`"] = functools.partial(_feedback, "KWTA")
    for name, make in small.items():
        for streaming in (False, True):
            sizes = (2, 6, 6) if name in images else (12,)
            made = functools.partial(_exported, make, sizes, streaming)
            found.append(Row(name + (", stream" if streaming else ""), made))
    return found


def _exported(
    make: Callable[[], nn.Module], sizes: tuple[int, ...], streaming: bool
) -> onnx.ModelProto:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = make()
        x = torch.rand(BATCH, *sizes, 8).round()
        module(x)  # draws the delays
        for layer in module.modules():
            if isinstance(layer, so.axon.Delay):
                layer.delay.data = 7 * torch.rand_like(layer.delay)
            if isinstance(layer, Stateful):
                layer.reset()
        return so.export(module.eval(), x, streaming=streaming)


def _neurons(kind: str, regime: str) -> nn.Module:
    blocks = getattr(so.block, kind)
    arguments = {**so.neuron.kinds()[kind].Neuron.example, "regime": regime}
    return nn.Sequential(
        blocks.Dense(arguments, 12, 10, weight_scale=3, delay=True),
        blocks.Dense(arguments, 10, 6, weight_scale=3),
    )


def _feedback(block: str) -> nn.Module:
    more = {"num_winners": 3} if block == "KWTA" else {}
    make = getattr(so.block.cuba, block)
    return nn.Sequential(make(so.neuron.cuba.Neuron.example, 12, 12, weight_scale=3, **more))


def _synapse(make: Any, hook: Any) -> nn.Module:
    sizes: dict[str, tuple[Any, ...]] = {
        "Dense": (12, 40), "Conv": (2, 3, 3), "ConvTranspose": (2, 3, 3), "Pool": (2,),
        "Unpool": (2,),
    }  # fmt: skip
    return nn.Sequential(make(*sizes[make.__name__], pre_hook_fx=hook))


def feeds(model: onnx.ModelProto) -> Arrays:
    """Draw what a model is given: a batch of sequences, and fresh states of a stream."""
    session, generator = so.Session(model, native=False), np.random.default_rng(0)
    given: Arrays = {}
    for info in model.graph.input:
        if info.name in session.inputs:
            open_sizes = {"N": BATCH, "T": STEPS}
            dims = info.type.tensor_type.shape.dim
            shape = tuple(dim.dim_value or open_sizes[dim.dim_param] for dim in dims)
            draw = SIGNALS.get(info.name, lambda g, shape: g.random(shape) < 0.3)
            given[info.name] = draw(generator, shape).astype(np.float32)
    return given | (session.fresh_states(BATCH) if session.streaming else {})


# -- runtimes ------------------------------------------------------------------------------------


def onnx_runtime(model: onnx.ModelProto, given: Arrays) -> Arrays:
    """Run ONNX Runtime by the functions of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def reference(model: onnx.ModelProto, given: Arrays) -> Arrays:
    """Run ONNX's reference evaluator on the file as it is."""
    names = [output.name for output in model.graph.output]
    found = ReferenceEvaluator(model).run(names, given)
    return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}


def openvino_flat(model: onnx.ModelProto, given: Arrays) -> Arrays:
    """Run OpenVINO on the flat graph."""
    return _openvino(so.flat(model), given)


def openvino_inlined(model: onnx.ModelProto, given: Arrays) -> Arrays:
    """Run OpenVINO on a graph in which functions are inlined and nothing else is done."""
    return _openvino(onnx.inliner.inline_local_functions(model), given)


def _openvino(model: onnx.ModelProto, given: Arrays) -> Arrays:
    import openvino

    core = openvino.Core()
    # neither bfloat16 nor float16, on no processor
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    read = core.read_model(io.BytesIO(model.SerializeToString()))
    compiled = core.compile_model(read, "CPU", exact)
    results = compiled(given)
    # views of memory that the compiled model owns
    return {output.name: np.array(results[i]) for i, output in enumerate(model.graph.output)}


RUNTIMES: dict[str, Callable[[onnx.ModelProto, Arrays], Arrays]] = {
    "reference evaluator": reference,
    "OpenVINO, inlined": openvino_inlined,
    "OpenVINO, `so.flat`": openvino_flat,
}


# -- comparing -----------------------------------------------------------------------------------


def compared(expected: Arrays, found: Arrays) -> str:
    """Say whether every value of every output and state is equal, or how many differ."""
    count = size = 0
    largest = 0.0
    for name, value in expected.items():
        other = found[name]
        if (value.shape, value.dtype) != (other.shape, other.dtype):
            return (
                f"{name} is {other.dtype}{list(other.shape)}, not {value.dtype}{list(value.shape)}"
            )
        differs = ~((value == other) | (np.isnan(value) & np.isnan(other)))
        size, count = size + value.size, count + int(differs.sum())
        if differs.any():
            gap = np.abs(value[differs].astype(float) - other[differs].astype(float))
            largest = max(largest, float(gap.max()))
    return f"{count:,} of {size:,} differ, by up to {largest:.2g}" if count else "equal"


def reason(error: Exception) -> str:
    """Name the operator that fails and say what a runtime says of it, in a few words."""
    text = str(error)
    functions = re.search(r"No conversion rule found for operations: ([^\n]*)", text)
    if functions:
        return f"no operator {functions[1]}"
    failed = re.findall(r"^-- (\w+)-\d+ with a message:", text, re.MULTILINE)
    if failed:
        return f"not converted: {', '.join(dict.fromkeys(failed))}"
    # the innermost node, by OpenVINO's name of its kind
    nodes = re.findall(r"Node \S+ of type (\w+)", text)
    added = re.findall(r"\[CPU\] (\w+) node with name", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Exception from" not in line), "no reason")
    place = (added or nodes)[-1:] or [type(error).__name__]
    return f"{place[0]}: {said}".replace("|", "/")[:120]


def measured(row: Row, runtimes: list[str]) -> list[str]:
    """Run one network everywhere; a cell for each runtime."""
    model = row.model()
    given = feeds(model)
    expected = onnx_runtime(model, given)
    outputs = [name for name in expected if name in so.Session(model, native=False).outputs]
    assert all(np.ptp(expected[name]) > 0 for name in outputs), f"{row.name}: nothing to compare"
    cells = []
    for name in runtimes:
        try:
            found = RUNTIMES[name](model, given)
            cell = compared(expected, found)
            # what differs may be memory that nothing has written
            if cell != "equal" and compared(found, RUNTIMES[name](model, given)) != "equal":
                cell = "differs, and from run to run"
            cells.append(cell)
        except Exception as error:  # whatever a runtime raises is what the table shows
            cells.append(reason(error))
    return cells


def table(found: dict[str, list[str]], runtimes: list[str]) -> str:
    """Show the cells as a table of Markdown."""
    lines = [["network", *runtimes], *([name, *cells] for name, cells in found.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def versions() -> str:
    """Name the versions that were run, and the machine."""
    named = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    return f"{named}; {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def page_rows(page: str) -> dict[str, list[str]]:
    """Read the table of the page."""
    body = page.partition(MARKS[0])[2].partition(MARKS[1])[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: rest for name, *rest in cells[2:]}


def write(body: str) -> None:
    """Put the table into the page of the documentation."""
    before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{body}\n{MARKS[1]}{after}", "utf-8")


@click.command(help=__doc__)
@click.option("--only", default="", help="Rows whose name has this in it.")
@click.option("--write", "writes", is_flag=True, help="Write the table into the documentation.")
@click.option("--check", "checks", is_flag=True, help="Exit 1 where the page says something else.")
def main(only: str, writes: bool, checks: bool) -> None:
    """Measure and print the table."""
    if importlib.util.find_spec("openvino") is None:
        raise click.UsageError("OpenVINO is not installed: pip install -e '.[runtimes]'")
    if writes and only:
        raise click.UsageError("--write takes all rows, so it goes without --only")
    runtimes, found = list(RUNTIMES), {}
    for row in rows():
        if only in row.name:
            found[row.name] = measured(row, runtimes)
            click.echo(f"{row.name}: {'; '.join(found[row.name])}", err=True)
    if not found:
        raise click.UsageError(f"no row has {only!r} in its name")
    click.echo(table(found, runtimes))
    if writes:
        write(f"{versions()}:\n\n{table(found, runtimes)}")
    if checks:
        stated = page_rows(PAGE.read_text("utf-8"))
        wrong = [name for name, cells in found.items() if stated.get(name) != cells]
        for name in wrong:
            click.echo(f"{name}: the page says {stated.get(name)}, this run {found[name]}")
        raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
