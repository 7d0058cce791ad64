"""``synapse-onnx inspect``: what a model holds."""

from __future__ import annotations

import json
import os

import click

from synapse_onnx import native as native_kernels
from synapse_onnx.cli._models import inputs_of, outputs_of, read_metadata
from synapse_onnx.cli._output import (
    make_console,
    print_facts,
    print_layers,
    print_notes,
    print_table,
    shape_text,
    size_text,
)

__all__ = ["command"]


@click.command(
    "inspect",
    epilog="""\b
Example:
  synapse-onnx inspect net.onnx
  synapse-onnx inspect net.onnx --json > net.json""",
)
@click.argument("model", metavar="MODEL.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(model: str, as_json: bool) -> None:
    """Show what a model holds: layers, inputs, outputs.

    Needs neither torch nor ONNX Runtime, and runs nothing.
    """
    from synapse_onnx.runtime import load_model

    proto = load_model(model)
    metadata = read_metadata(proto)
    ends = {"inputs": inputs_of(proto), "outputs": outputs_of(proto)}
    states = metadata.states if metadata else ()
    opset = {item.domain: item.version for item in proto.opset_import}
    foreign = "the model was not written by synapse-onnx; its layers are not known"
    notes = list(metadata.notes) if metadata else [foreign]
    size = os.path.getsize(model)
    native = native_kernels.used_by(proto)
    if as_json:
        document = {
            "file": model,
            "bytes": size,
            "opset": opset.get("", 0),
            "ir_version": proto.ir_version,
            "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
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
                for side, values in ends.items()
            },
            "exact": list(metadata.exact) if metadata else [],
            "streaming": metadata.streaming if metadata else False,
            "chunk": metadata.chunk if metadata else 1,
            "layout": metadata.layout if metadata else None,
            "states": [dict(state) for state in states],
            "layers": [dict(layer) for layer in metadata.layers] if metadata else [],
            "native": list(native),
            "notes": notes,
        }
        click.echo(json.dumps(document, indent=2))
        return
    console = make_console()
    producer = f"{proto.producer_name} {proto.producer_version}".strip() or "not stated"
    facts = {
        "file": model,
        "size": size_text(size),
        "written by": f"{producer}, torch {metadata.torch_version}" if metadata else producer,
        "opset": f"{opset.get('', 'none')} (IR version {proto.ir_version})",
        "nodes": f"{len(proto.graph.node)} ({len(proto.functions)} functions)",
    }
    if metadata:
        if native:
            kernels = f"{', '.join(native)} ({native_kernels.instructions()})"
        elif native_kernels.problem() is None:
            kernels = "none for its ops"
        else:
            kernels = "none here; synapse-onnx --version says why"
        facts["native kernels"] = kernels
        facts["regime"] = metadata.regime
        if metadata.layout == "TNC":
            facts["layout"] = "TNC, time first"
        if metadata.streaming:
            facts["streaming"] = "yes" + (
                f", in multiples of {metadata.chunk} time steps" if metadata.chunk > 1 else ""
            )
    print_facts(console, facts)
    exact = metadata.exact if metadata else ()
    console.print()
    head = {"": "left", "name": "left", "type": "left", "shape": "left", "exact": "left"}
    rows = [
        [side[:-1], name, kind, shape_text(shape), "yes" if name in exact else ""]
        for side, values in ends.items()
        for name, (kind, shape) in values.items()
    ]
    print_table(head, rows)
    if metadata and metadata.layers:
        console.print()
        print_layers(metadata.layers)
        console.print()
        print_table(
            {"layer": "left", "its numbers in ONNX Runtime": "left"},
            [
                [str(layer["path"]) or "(the model)", str(layer["arithmetic"])]
                for layer in metadata.layers
                if "arithmetic" in layer
            ],
        )
    if states:
        console.print()
        print_table(
            {"state": "left", "type": "left", "shape": "left", "start": "right"},
            [
                [
                    str(state["input"]),
                    str(state["dtype"]),
                    shape_text(["N", *state["shape"][1:]]),
                    f"{state['start']:g}",
                ]
                for state in states
            ],
        )
    if notes:
        console.print()
    print_notes(console, notes)
