"""``synapse-onnx inspect``: show the contents of a model, and its activity on a sample."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from synapse_onnx.cli import _options as options
from synapse_onnx.cli._inputs import inputs_of, outputs_of, read_arrays, read_metadata
from synapse_onnx.cli._output import print_facts, print_layers, print_note, print_table, size_text
from synapse_onnx.errors import InputError
from synapse_onnx.files import write_atomically
from synapse_onnx.formatting import shape_text
from synapse_onnx.model.step_loops import step_loops
from synapse_onnx.runtime import native as native_kernels

if TYPE_CHECKING:
    from synapse_onnx.model.metadata import Metadata
    from synapse_onnx.report.activity import Activity, Spikes
    from synapse_onnx.report.kernels import Kernel
    from synapse_onnx.report.metrics import Metrics

__all__ = ["command"]


def _activity_document(activity: Activity, kernels: tuple[Kernel, ...]) -> dict[str, Any]:
    """Return the part of --json on a run."""

    def facts(row: Spikes, *left_out: str) -> dict[str, Any]:
        shares = {name: getattr(row, name) for name in ("rate", "ratio") if hasattr(row, name)}
        return {key: v for key, v in (asdict(row) | shares).items() if key not in left_out}

    return {
        "activity": {
            "synapses": [facts(row) for row in activity.synapses],
            "all_synapses": facts(activity.all_synapses, "layer", "op"),
            "neurons": [facts(row) for row in activity.neurons],
            "all_neurons": facts(activity.all_neurons, "layer", "op"),
            "not_counted": [
                {"layer": layer, "op": op, "multiplies": (layer, op) in activity.products}
                for layer, op in activity.uncounted
            ],
        },
        "kernels": [
            {
                "op": kernel.op,
                "native": kernel.native,
                "provider": kernel.provider,
                "numbers": kernel.numbers,
                "input_types": list(kernel.types),
                "nodes": kernel.nodes,
                "calls": kernel.calls,
                "share": kernel.share,
            }
            for kernel in kernels
        ],
    }


def _print_activity(activity: Activity, kernels: tuple[Kernel, ...]) -> list[str]:
    """Print the activity of a run; return notes on nodes that are not counted."""

    def spiked(row: Spikes) -> list[str]:
        return [row.layer, f"{row.nonzero:,}", f"{row.rate:.2%}"]

    right = ["events in", "rate", "SynOps", "dense MACs", "ratio"]
    rows = [
        [*spiked(row), f"{row.synops:,}", f"{row.macs:,}", f"{row.ratio:.2%}"]
        for row in (*activity.synapses, activity.all_synapses)
    ]
    click.echo()
    print_table(("synapse", *right), rows, right)
    rows = [spiked(row) for row in (*activity.neurons, activity.all_neurons)]
    click.echo()
    print_table(("neuron", "spikes out", "rate"), rows, ("spikes out", "rate"))
    right = ["nodes", "calls", "time"]
    rows = [
        [
            kernel.op + (" (native)" if kernel.native else ""),
            ", ".join(kernel.types),
            kernel.numbers,
            kernel.provider.removesuffix("ExecutionProvider"),
            f"{kernel.nodes:,}",
            f"{kernel.calls:,}",
            f"{kernel.share:.1%}",
        ]
        for kernel in kernels
    ]
    click.echo()
    print_table(("kernel", "inputs", "numbers", "provider", *right), rows, right)
    products = activity.products
    others = tuple(entry for entry in activity.uncounted if entry not in products)
    notes = []
    for entries, what in (
        (products, "multiplied by ordinary code or without weights in the file, so not in SynOps"),
        (others, "no synapse and no spikes, so not counted"),
    ):
        if entries:
            names = ", ".join(f"{layer} ({op})" for layer, op in entries)
            notes.append(f"{what}: {names}")
    return notes


def _neurobench_document(metrics: Metrics) -> dict[str, Any]:
    """Return the part of --json on NeuroBench's metrics."""
    rows = ("connections", "activations")
    facts = {key: value for key, value in vars(metrics).items() if key not in (*rows, "notes")}
    return {"neurobench": facts | {key: [asdict(r) for r in getattr(metrics, key)] for key in rows}}


def _print_neurobench(metrics: Metrics) -> None:
    """Print NeuroBench's metrics."""

    def number(value: float | None) -> str:
        return "not known" if value is None else f"{value:,}"

    rows = [
        ["footprint of the file, bytes", number(metrics.file_footprint)],
        ["connection sparsity", number(metrics.connection_sparsity)],
        ["activation sparsity", number(metrics.activation_sparsity)],
        ["dense operations a sample", number(metrics.dense)],
        ["effective MACs a sample", number(metrics.effective_macs)],
        ["effective ACs a sample", number(metrics.effective_acs)],
        ["membrane updates a sample", number(metrics.membrane_updates)],
    ]
    click.echo()
    print_table(("NeuroBench", "value"), rows, ("value",))


def _kernels_text(proto: Any, provider: str) -> str:
    names = native_kernels.used_by(proto, provider)
    if names:
        return f"{', '.join(names)} ({native_kernels.instructions(provider)})"
    if native_kernels.problem(provider) is None:
        return "none for its ops"
    return "none here; synapse-onnx --version says why"


def _ran(
    model: Any, inputs: tuple[str, ...], native: bool | None, providers: tuple[str, ...]
) -> tuple[Activity | None, tuple[Kernel, ...]]:
    """Run the model on the sample of --input, if there is one."""
    if not inputs:
        for option, given in (("--native", native is not None), ("--provider", providers)):
            if given:
                raise InputError(f"{option} is for a run; give a sample by --input")
        return None, ()
    from synapse_onnx.report.activity import count_activity
    from synapse_onnx.report.kernels import profile_kernels

    arrays = read_arrays(inputs, inputs_of(model))
    how = native, options.full_names(providers)
    return count_activity(model, arrays, *how), profile_kernels(model, arrays, *how)


def _measured(
    model: Any, inputs: tuple[str, ...], native: bool | None, providers: tuple[str, ...]
) -> Metrics:
    """Return NeuroBench's metrics of the sample of --input.

    Raises:
        InputError: there is none.
    """
    if not inputs:
        raise InputError("--neurobench is for a run; give a sample by --input")
    from synapse_onnx.report.metrics import neurobench

    arrays = read_arrays(inputs, inputs_of(model))
    return neurobench(model, list(arrays), None, native, options.full_names(providers))


def _producer(proto: Any) -> str:
    return f"{proto.producer_name} {proto.producer_version}".strip()


def _opset(proto: Any) -> int | None:
    """Return the opset of the standard operators."""
    return next((item.version for item in proto.opset_import if not item.domain), None)


def _document(model: str, proto: Any, metadata: Metadata | None) -> dict[str, Any]:
    """Return the part of --json on a model."""
    return {
        "file": model,
        "bytes": os.path.getsize(model),
        "opset": _opset(proto) or 0,
        "ir_version": proto.ir_version,
        "producer": _producer(proto),
        "version": metadata.version if metadata else None,
        "torch_version": metadata.torch_version if metadata else None,
        "regime": metadata.regime if metadata else None,
        "nodes": len(proto.graph.node),
        "functions": len(proto.functions),
        **{
            side: [
                {"name": name, "type": kind, "shape": shape}
                for name, (kind, shape) in values.items()
            ]
            for side, values in (("inputs", inputs_of(proto)), ("outputs", outputs_of(proto)))
        },
        "exact": list(metadata.exact) if metadata else [],
        "streaming": metadata.streaming if metadata else False,
        "chunk": metadata.chunk if metadata else 1,
        "layout": metadata.layout if metadata else None,
        "states": [dict(state) for state in metadata.states] if metadata else [],
        "layers": [dict(layer) for layer in metadata.layers] if metadata else [],
        "loops": [asdict(loop) for loop in step_loops(proto.graph)],
        "native": list(native_kernels.used_by(proto)),
        "native_cuda": list(native_kernels.used_by(proto, native_kernels.CUDA)),
    }


def _print_model(model: str, proto: Any, metadata: Metadata | None) -> None:
    """Print the contents of a model."""
    producer = _producer(proto) or "not stated"
    ends = (("input", inputs_of(proto)), ("output", outputs_of(proto)))
    facts = {
        "file": model,
        "size": size_text(os.path.getsize(model)),
        "written by": f"{producer}, torch {metadata.torch_version}" if metadata else producer,
        "opset": f"{_opset(proto) or 'none'} (IR version {proto.ir_version})",
        "nodes": f"{len(proto.graph.node)} ({len(proto.functions)} functions)",
    }
    if metadata:
        facts["native kernels"] = _kernels_text(proto, native_kernels.CPU)
        if native_kernels.library(native_kernels.CUDA) is not None:
            facts["and for CUDA"] = _kernels_text(proto, native_kernels.CUDA)
        facts["regime"] = metadata.regime
        if metadata.layout != "NCT":
            place = "first" if metadata.layout == "TNC" else "after the batch"
            facts["layout"] = f"{metadata.layout}, time {place}"
        if metadata.streaming:
            more = f", in multiples of {metadata.chunk} time steps" if metadata.chunk > 1 else ""
            facts["streaming"] = f"yes{more}"
    print_facts(facts)
    exact = metadata.exact if metadata else ()
    rows = [
        [side, name, kind, shape_text(shape), "yes" if name in exact else ""]
        for side, values in ends
        for name, (kind, shape) in values.items()
    ]
    click.echo()
    print_table(("", "name", "type", "shape", "exact"), rows)
    if metadata and metadata.layers:
        click.echo()
        print_layers(metadata.layers, metadata.states)
        rows = [
            [str(layer["path"]) or "(the model)", str(layer["arithmetic"])]
            for layer in metadata.layers
            if "arithmetic" in layer
        ]
        click.echo()
        print_table(("layer", "its numbers in ONNX Runtime"), rows)
    loops = step_loops(proto.graph)
    if loops:
        rows = [
            [loop.name, ", ".join(map(shape_text, loop.states)), f"{loop.operators:,}"]
            for loop in loops
        ]
        click.echo()
        print_table(("loop over time", "states", "operators"), rows, ("operators",))
    if metadata and metadata.states:
        rows = [
            [
                str(s["input"]),
                str(s["dtype"]),
                shape_text(["N", *s["shape"][1:]]),
                f"{s['start']:g}",
            ]
            for s in metadata.states
        ]
        click.echo()
        print_table(("state", "type", "shape", "start"), rows, ("start",))


@click.command(
    "inspect",
    epilog="""\b
Example:
  synapse-onnx inspect net.onnx
  synapse-onnx inspect net.onnx --json > net.json
  synapse-onnx inspect net.onnx --input spikes.npy
  synapse-onnx inspect net.onnx --input spikes.npy --neurobench
  synapse-onnx inspect net.onnx --svg net.svg""",
)
@options.model
@options.inputs(
    "Sample input, as for `run` (repeatable): show spike rates, synaptic operations and the "
    "kernels that ran."
)
@options.providers(help="; needs --input")
@options.native(help="; needs --input")
@click.option(
    "--svg",
    "drawing",
    metavar="GRAPH.svg",
    help="Write a drawing of the graph; with --input, its boxes show spike rates.",
)
@click.option(
    "--neurobench",
    "measured",
    is_flag=True,
    help="Show NeuroBench's metrics: footprint, sparsity, operations; needs --input.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    model: str,
    inputs: tuple[str, ...],
    providers: tuple[str, ...],
    native: str,
    drawing: str | None,
    measured: bool,
    as_json: bool,
) -> None:
    """Show the layers, inputs and outputs of a model.

    With --input, the model runs on the sample: synaptic operations are counted exactly, and ONNX
    Runtime's profile tells which kernels ran. This needs ONNX Runtime, but not torch; without
    --input, neither is needed.
    """
    from synapse_onnx.model.file import load_model

    if drawing is not None:
        options.check_target(drawing, ".svg")
    proto = load_model(model)
    metadata = read_metadata(proto)
    how = inputs, options.NATIVE[native], providers
    metrics = _measured(proto, *how) if measured else None
    activity, kernels = _ran(proto, *how)
    if drawing is not None:
        from synapse_onnx.report.drawing import to_svg

        write_atomically(drawing, to_svg(proto, activity).encode())
    foreign = "the model was not written by synapse-onnx; its layers are not known"
    notes = list(metadata.notes) if metadata else [foreign]
    notes += metrics.notes if metrics else ()
    if as_json:
        document = {**_document(model, proto, metadata), "notes": notes}
        if activity is not None:
            document |= _activity_document(activity, kernels)
        if metrics is not None:
            document |= _neurobench_document(metrics)
        click.echo(json.dumps(document, indent=2))
        return
    _print_model(model, proto, metadata)
    if activity is not None:
        notes += _print_activity(activity, kernels)
    if metrics is not None:
        _print_neurobench(metrics)
    if notes:
        click.echo()
    for note in notes:
        print_note(note)
    if drawing is not None:
        click.echo()
        print_facts({"wrote": drawing})
