"""Pages that are generated from the code: every op, every command, every public name."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import onnx.printer

import synapse_onnx as so
from synapse_onnx import neuron
from synapse_onnx.cli import main
from synapse_onnx.formatting import snake_case
from synapse_onnx.ops import OpDef, all_ops
from synapse_onnx.runtime import native

__all__ = ["pages", "write_pages"]

OPSET = inspect.signature(so.export).parameters["opset"].default

#: OpDef.exact -> the contract in a few words, and in a sentence
_CONTRACTS: Mapping[bool | None, tuple[str, str]] = {
    True: ("equal", "Equal inputs give equal outputs everywhere, bit for bit."),
    None: (
        "equal within its bound",
        "Equal outputs, bit for bit, while float32 holds the sums exactly. `export` writes the "
        "bound into the file, and `verify` compares it with the inputs of its run.",
    ),
    False: (
        "close",
        "Floats: sums in another order round differently. `verify` demands its tolerance. The "
        "spikes of a neuron may differ only where the voltage is that close to the threshold.",
    ),
}


def write_pages(folder: Path) -> None:
    """Write all pages into a folder of their own, and remove other pages from it."""
    folder.mkdir(exist_ok=True)
    wanted = dict(pages())
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = folder / name
        # an unchanged page keeps its time stamp, so Sphinx does not build it again
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def pages() -> Iterator[tuple[str, str]]:
    """Yield (file name, text in Markdown) of every page."""
    families = _families(all_ops().values())
    yield "ops.md", _table_of_ops(families)
    for title, ops in families.items():
        sections = (line for op in ops for line in _section(op))
        yield f"{_page(ops)}.md", "\n".join([f"# {title}", "", *sections])
    yield "cli.md", _commands()
    yield "api.md", _public_names()


# -- ops -----------------------------------------------------------------------------------------


def _families(ops: Iterable[OpDef]) -> dict[str, list[OpDef]]:
    """Ops of one equation, by its name: the words before the first colon or full stop."""
    families: defaultdict[str, list[OpDef]] = defaultdict(list)
    for op in ops:
        families[re.split(r"[:.,]", op.doc, maxsplit=1)[0]].append(op)
    return dict(sorted(families.items()))


def _page(ops: list[OpDef]) -> str:
    """Name of a family's page, after its simplest op."""
    name = min((op.name for op in ops), key=len)
    return f"op_{snake_case(name)}"


def _table_of_ops(families: Mapping[str, list[OpDef]]) -> str:
    lines = [
        "# Ops",
        "",
        f"{sum(map(len, families.values()))} ops of the domain `ai.synapse`. An exported file",
        "holds the body of every op that it uses, as a function of standard operators. *Contract*",
        "says how closely torch and ONNX Runtime agree. Each page has the equation, the torch op",
        f"and the ONNX body, at opset {OPSET}.",
        "",
        "| op | torch op | contract | native kernel |",
        "|---|---|---|---|",
    ]
    for title, ops in families.items():
        lines.append(f"| **[{title}]({_page(ops)}.md)** | | | |")
        for op in ops:
            cells = (f"`{op.name}`", f"`{_torch_name(op)}`", _CONTRACTS[op.exact][0], _kernel(op))
            lines.append(f"| {' | '.join(cells)} |")
    tree = ["```{toctree}", ":hidden:", "", *map(_page, families.values()), "```"]
    return "\n".join([*lines, "", *tree, ""])


def _kernel(op: OpDef) -> str:
    """Which native kernels an op has in the install that builds these pages."""
    if native.library() is None:
        return "(not built here)"
    libraries = {"CPU": native.kernels(), "CUDA": native.kernels(native.CUDA)}
    return ", ".join(name for name, kernels in libraries.items() if op.name in kernels) or "no"


def _torch_name(op: OpDef) -> str:
    return str(op.torch_op).removesuffix(".default").replace(".", "::")


def _section(op: OpDef) -> list[str]:
    attributes = ", ".join(
        f"`{name}` ({'ints' if isinstance(kind, tuple) else kind.__name__})"
        for name, kind in op.attributes.items()
    )
    signature = f"{op.name}({', '.join(op.inputs)}) -> {', '.join(op.outputs)}"
    _, _, body = onnx.printer.to_text(op.function(OPSET)).partition("\n{\n")
    return [
        f"## {op.name}",
        "",
        "```text",
        *_equation(op.doc),
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| node | `{signature}` |",
        f"| attributes | {attributes or 'none'} |",
        f"| torch op | `{_torch_name(op)}{_schema(op)}` |",
        f"| contract | **{_CONTRACTS[op.exact][0]}**. {_CONTRACTS[op.exact][1]} |",
        f"| native kernel | {_kernel(op)} |",
        "",
        "<details><summary>ONNX body</summary>",
        "",
        "```text",
        *_dedented(body.rstrip().removesuffix("}")),
        "```",
        "",
        "</details>",
        "",
    ]


def _equation(doc: str) -> list[str]:
    """Put each statement of an equation on its own line."""
    return re.sub(r"(?<=;) |(?<=\.) (?=[A-Z])|(?<=[a-z]:) (?=\S+\[)", "\n", doc).split("\n")


def _schema(op: OpDef) -> str:
    schema = str(op.torch_op._schema)
    return schema[schema.index("(") :].replace("|", "\\|")


def _dedented(text: str) -> Iterator[str]:
    """Indent statements by two spaces for each open brace."""
    depth = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        depth -= line.startswith("}")
        yield "  " * depth + line
        depth += line.startswith("}") + line.count("{") - line.count("}")


# -- command line and public names ---------------------------------------------------------------


def _commands() -> str:
    context = click.Context(main, info_name="synapse-onnx", max_content_width=80)
    parts = ["# Command line", "", "```text", main.get_help(context), "```", ""]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, max_content_width=80)
        parts += [f"## {name}", "", "```text", command.get_help(inner), "```", ""]
    return "\n".join(parts)


def _public_names() -> str:
    things = {name: getattr(so, name) for name in so.__all__ if name != "__version__"}
    modules = [thing.__name__ for thing in things.values() if inspect.ismodule(thing)]
    parts = [
        "# Python",
        "",
        "`import synapse_onnx as so`. Every name is imported when it is first used.",
        "",
    ]
    for name, thing in things.items():
        if not inspect.ismodule(thing):
            kind = "autoclass" if inspect.isclass(thing) else "autofunction"
            if inspect.isclass(thing) and issubclass(thing, Exception):
                kind = "autoexception"
            parts += _described(f"so.{name}", kind, f"synapse_onnx.{name}")
    inner = {
        "synapse_onnx.synapse": ["layer", "complex"],
        "synapse_onnx.neuron": [*neuron.kinds(), "norm", "dropout"],
        "synapse_onnx.block": ["base"],
    }
    for module in modules:
        title = module.replace("synapse_onnx", "so")
        if module not in inner:
            parts += _described(title, "automodule", module)
        for name in inner.get(module, []):
            parts += _described(f"{title}.{name}", "automodule", f"{module}.{name}")
    return "\n".join(parts)


def _described(title: str, kind: str, name: str) -> Sequence[str]:
    options = [] if kind == "autofunction" else ["   :members:"]
    return [f"## {title}", "", "```{eval-rst}", f".. {kind}:: {name}", *options, "```", ""]
