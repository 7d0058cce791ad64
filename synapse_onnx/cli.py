"""The command line: export, verify, run and inspect.

Exit codes: 0 done and equal, 1 the numbers differ, 2 the input or the call is at fault. Every
expected failure is one sentence on stderr that begins with "error: ". ``run`` and ``inspect``
need no torch: whatever needs it is imported where it is used.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import importlib.util
import inspect as python_inspect
import io
import json
import math
import os
import re
import shlex
import sys
import sysconfig
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import synapse_onnx
from synapse_onnx import native as native_kernels
from synapse_onnx._version import __version__
from synapse_onnx.errors import ExportError, InputError, ModelError, SynapseError
from synapse_onnx.files import write_atomically
from synapse_onnx.layout import INPUT_TYPES, LAYOUTS, axes_of, has_time, time_first, time_last

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from synapse_onnx.metadata import Metadata

__all__ = ["main"]

Array = NDArray[Any]

DIFFERENT, AT_FAULT, BUG, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 130, 141

#: short names of execution providers
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


# -- errors ----------------------------------------------------------------------------------


class _Group(click.Group):
    """The one place in which an exception becomes a sentence and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and leave with its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # ✓ on a terminal that has none
        path = list(sys.path)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            _fail(_usage(error), AT_FAULT)
        except SynapseError as error:
            _fail(str(error), AT_FAULT)
        except MemoryError:
            _fail("there is not enough memory; take fewer samples, steps or neurons", AT_FAULT)
        except click.Abort:
            _fail("interrupted", INTERRUPTED)
        except Exception as error:  # not an expected failure, and must not look like "differs"
            traceback.print_exc()
            _fail(
                f"unexpected {type(error).__name__}: {_gist(error)}; this is a bug in "
                f"synapse-onnx, please report it with the lines above",
                BUG,
            )
        finally:
            sys.path[:] = path  # SOURCE's folder was put there
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a reader that has closed the pipe ends it, quietly."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # here, because click's main makes it exit code 1: "differs"
            # Python flushes once more when it ends, and would complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result


def _fail(sentence: str, code: int) -> NoReturn:
    label = click.style("error:", fg="red", bold=True)
    click.echo(f"{label} {' '.join(sentence.split())}", err=True)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """Turn click's complaint into a sentence that says where the help is."""
    message = error.format_message().strip().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{message}; see '{context.command_path} --help'" if context else message


def _gist(error: BaseException) -> str:
    """First line of a message; also the second where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    text = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    text = text.rstrip(".")
    return text if len(text) <= 300 else text[:297] + "..."


def _reason(error: Exception) -> str:
    return (error.strerror or _gist(error)) if isinstance(error, OSError) else _gist(error)


def _few(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


# -- SOURCE ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _users_code(source: str) -> Iterator[None]:
    """Report what SOURCE's own code raises as a sentence about SOURCE."""
    try:
        yield
    except MemoryError:
        raise
    except SynapseError as error:  # a sentence already
        raise InputError(f"{source}: {error}{_place(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{source} raised {type(error).__name__}: {_gist(error)}{_place(error)}"
        ) from error


@contextlib.contextmanager
def _users_forward(source: str) -> Iterator[None]:
    """Report what SOURCE's ``forward`` raises; leave exceptions of our own code alone."""
    from torch import nn

    theirs = (nn.Module._call_impl.__code__, copy.deepcopy.__code__)
    try:
        yield
    except SynapseError:
        raise
    except Exception as error:
        frames = traceback.walk_tb(error.__traceback__)
        if not any(frame.f_code in theirs for frame, _ in frames):
            raise
        with _users_code(source):
            raise


def _place(error: BaseException) -> str:
    """Say in which line of the user's files an exception was raised."""
    if isinstance(error, SyntaxError):
        return ""  # its message says it
    loaded = sys.modules.get("torch")
    libraries = [sysconfig.get_path("stdlib"), os.path.dirname(__file__)]
    if loaded is not None and loaded.__file__:
        libraries.append(os.path.dirname(loaded.__file__))
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        own = "site-packages" in file or not file.startswith(libraries[0])
        if os.path.isfile(file) and own and not file.startswith(tuple(libraries[1:])):
            place = f" ({os.path.basename(file)}, line {line})"
    return place


def _split(source: str) -> tuple[str, str]:
    """Split a SOURCE into module or file, and name."""
    where, colon, name = source.rpartition(":")
    if not colon or not where or not name:
        from synapse_onnx.readers import all_readers

        files = ", ".join(f"{'/'.join(r.suffixes)} ({r.name})" for r in all_readers())
        raise InputError(
            f"SOURCE {source!r} must be package.module:name or path/to/file.py:name, where name "
            f"is a torch.nn.Module or a function that returns one, or a file of a network: {files}"
        )
    return where, name


def _check_source(source: str) -> None:
    """Refuse a SOURCE of the wrong form before anything is read."""
    try:
        _split(source)
    except InputError:
        from synapse_onnx.readers import reader_for  # which loads torch

        if reader_for(source) is None:
            raise


def _load(source: str, weights: str | None, settings: Mapping[str, str]) -> nn.Module:
    """Read the file SOURCE; or import it, make its network, and load a checkpoint into it."""
    from synapse_onnx.readers import reader_for

    reader = reader_for(source)
    if reader is not None:
        if weights is not None:
            raise InputError(f"{source} holds weights of its own; leave --weights away")
        return reader.read(source, settings)
    if settings:
        raise InputError(f"--set is for files of networks, and {source} is code")
    where, name = _split(source)
    from torch import nn  # before SOURCE's folder can hide a module that torch needs

    namespace = _import_file(where, source) if _is_file(where) else _import_module(where, source)
    value = namespace
    for part in name.split("."):
        with _users_code(source):
            known = dir(value)
            found = hasattr(value, part)
        if not found:
            close = difflib.get_close_matches(part, known, n=1)
            raise InputError(
                f"{where} has no name {part!r}; "
                + (f"did you mean {close[0]!r}?" if close else "define it, or name another one")
            )
        value = getattr(value, part)
    if not isinstance(value, nn.Module) and callable(value):
        with _users_code(source):
            value = value()
    if not isinstance(value, nn.Module):
        raise InputError(
            f"{source} is of type {type(value).__name__}; it must be a torch.nn.Module or a "
            f"function without arguments that returns one"
        )
    if weights is not None:
        _load_weights(value, weights, source)
    return value


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or os.sep in where


def _import_file(where: str, source: str) -> Any:
    path = Path(where)
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "no such file"
        raise InputError(f"SOURCE {source!r}: {where} cannot be read: {reason}")
    if path.suffix != ".py":
        raise InputError(f"SOURCE {source!r}: {where} must be a .py file")
    sys.path.insert(0, str(path.parent.resolve()))  # as "python file.py" does
    # a name that hides no module of the same name
    name = f"_synapse_onnx_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"SOURCE {source!r}: {where} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    with _users_code(source):
        spec.loader.exec_module(module)
    return module


def _import_module(where: str, source: str) -> Any:
    if not all(part.isidentifier() for part in where.split(".")):
        raise InputError(
            f"SOURCE {source!r}: {where!r} is neither a module's name nor a path that ends in .py"
        )
    sys.path.insert(0, os.getcwd())  # as "python -m" does
    try:
        with _users_code(source):
            return importlib.import_module(where)
    except InputError as error:
        missing = error.__cause__
        parents = [where.rsplit(".", n)[0] for n in range(where.count(".") + 1)]
        if isinstance(missing, ModuleNotFoundError) and missing.name in parents:
            raise InputError(
                f"SOURCE {source!r}: there is no module {missing.name!r} here; run from the "
                f"folder that holds it, or give path/to/file.py:name"
            ) from error
        raise


def _load_weights(module: nn.Module, path: str, source: str) -> None:
    """Load a checkpoint; never runs code from the file."""
    import torch

    if not os.path.isfile(path):
        reason = "it is a folder" if os.path.isdir(path) else "no such file"
        raise InputError(f"{path} cannot be read: {reason}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    except Exception as error:  # a file that is damaged or foreign raises whatever its bytes say
        if re.search("Unsupported (global|class)", str(error)):
            raise InputError(
                f"{path} holds Python objects, which are not loaded; save it again by "
                f"torch.save(module.state_dict(), path)"
            ) from error
        raise InputError(
            f"{path} is no checkpoint of torch, or a damaged one; write one by "
            f"torch.save(module.state_dict(), path)"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise InputError(
            f"{path} holds a {type(state).__name__} that is no state_dict; write one by "
            f"torch.save(module.state_dict(), path)"
        )
    try:
        module.load_state_dict(state)
    except SynapseError as error:
        raise type(error)(f"{path} does not fit {source}: {error}") from error
    except Exception as error:  # torch: RuntimeError; what is no tensor raises other classes
        raise InputError(f"{path} does not fit {source}: {_mismatch(error)}") from error


def _mismatch(error: Exception) -> str:
    """Condense the lines of ``load_state_dict`` to a part of a sentence."""
    text = str(error)
    parts = []
    for head, word in (("Missing key", "missing"), ("Unexpected key", "unexpected")):
        found = re.search(rf"{head}\(s\) in state_dict: (.*?)\.\s*$", text, re.MULTILINE)
        if found:
            names = re.findall(r'"([^"]*)"', found[1])
            parts.append(f"{word} {_few(names)}")
    sizes = re.findall(
        r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)", text
    )
    sizes = [f"{name} is ({file}) and must be ({network})" for name, file, network in sizes]
    if sizes:
        parts.append(_few(sizes, 2))
    return "; ".join(parts) or _gist(error)


def _known_shapes(module: nn.Module, source: str) -> list[tuple[int, ...]]:
    """Shapes of one sample of every input, where a network that was read from a file knows them."""
    shapes: Sequence[tuple[int, ...] | None] = getattr(module, "input_shapes", [])
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes):
        raise InputError(
            f"{source} does not say the shape of its input; give --shape C or --shape C,H,W once "
            f"for every input"
        )
    return known


def _match_arguments(module: nn.Module, arrays: Sequence[Array], source: str, hint: str) -> None:
    """Refuse the wrong number of inputs before torch does."""
    signature = python_inspect.signature(module.forward)
    try:
        signature.bind(*arrays)
    except TypeError as error:
        raise InputError(
            f"forward{signature} of {source} does not take {len(arrays)} inputs; {hint}"
        ) from error


# -- arrays ----------------------------------------------------------------------------------


def _random_spikes(
    shapes: Sequence[Sequence[int]], *, rate: float, seed: int, dtypes: Sequence[Any] = ()
) -> list[Array]:
    """Return seeded random 0/1 arrays."""
    rng = np.random.default_rng(seed)
    arrays = []
    for i, shape in enumerate(shapes):
        try:
            spikes = rng.random(tuple(shape), dtype=np.float32) < rate
            arrays.append(spikes.astype(dtypes[i] if dtypes else np.float32))
        except (MemoryError, ValueError) as error:
            text = ", ".join(map(str, shape))
            raise InputError(f"an input of shape ({text}) does not fit into memory") from error
    return arrays


def _read_arrays(paths: Sequence[str], names: Sequence[str]) -> list[Array]:
    """Read .npy and .npz files, in the order of the model's inputs.

    A single .npz whose keys are the names of the inputs is taken by name; else every array
    counts, in the order of the files.
    """
    arrays: list[Array] = []
    for path in paths:
        found = _read_file(path)
        if len(paths) == 1 and len(names) > 1 and set(found) == set(names):
            found = {name: found[name] for name in names}
        for key, array in found.items():
            if array.dtype.kind not in "biuf":
                what = f"{path} ({key})" if key else path
                raise InputError(f"{what} holds {array.dtype} values; real numbers are needed")
        arrays += found.values()
    if len(arrays) != len(names):
        raise InputError(
            f"the model takes {', '.join(names)} and --input gives {len(arrays)} arrays; give one "
            f"for each, in this order"
        )
    return arrays


def _read_file(path: str) -> dict[str, Array]:
    """Read the arrays of one file, never running code from it."""
    try:
        # numpy leaves a damaged file open when it opens it itself
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded:
                return {key: loaded[key] for key in loaded.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file raises depends on its bytes
        if "Object arrays" in str(error):
            raise InputError(
                f"{path} holds Python objects; save an array of numbers by numpy.save"
            ) from error
        raise InputError(
            f"{path} is no .npy or .npz file, or a damaged one; write one by numpy.save"
        ) from error


def _npz(arrays: Mapping[str, Array]) -> bytes:
    """Pack arrays; the same arrays give the same bytes, and any name may be a key."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED  # spikes are mostly zeros
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _check_target(path: str, *suffixes: str) -> None:
    """Refuse an output path before the work is done, not after it."""
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder")
    if target.suffix not in suffixes:
        raise InputError(f"{path} cannot be written: its name must end in {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {target.parent}")


# -- models ----------------------------------------------------------------------------------


def _read_metadata(model: onnx.ModelProto) -> Metadata | None:
    from synapse_onnx.metadata import Metadata

    try:
        return Metadata.read(model)
    except ModelError:  # somebody else's model
        return None


def _values(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[str, list[int | str]]]:
    """Name -> (element type, shape) of inputs or outputs; open axes are names."""
    import onnx

    found: dict[str, tuple[str, list[int | str]]] = {}
    for value in values:
        kind = value.type.tensor_type
        shape: list[int | str] = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in kind.shape.dim
        ]
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        found[value.name] = (name, shape)
    return found


def _inputs(model: onnx.ModelProto) -> dict[str, tuple[str, list[int | str]]]:
    """Inputs that a caller gives: initialisers can be listed as inputs, too."""
    hidden = {tensor.name for tensor in model.graph.initializer} | _carried(model)
    return _values([value for value in model.graph.input if value.name not in hidden])


def _outputs(model: onnx.ModelProto) -> dict[str, tuple[str, list[int | str]]]:
    """Outputs that a caller gets: not the states of a streaming model."""
    hidden = _carried(model)
    return _values([value for value in model.graph.output if value.name not in hidden])


def _carried(model: onnx.ModelProto) -> set[str]:
    """Names of the states of a streaming model, inputs and outputs."""
    metadata = _read_metadata(model)
    states = metadata.states if metadata else ()
    return {str(state[side]) for state in states for side in ("input", "output")}


def _dtype(kind: str) -> Any:
    """Return NumPy's type of an ONNX element type."""
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind.upper()))


def _time_last(shape: list[int | str], layout: str) -> list[int | str]:
    """Bring the shape of an input to torch's layout."""
    return [*shape[1:], shape[0]] if axes_of(layout, len(shape))[1] == 0 else shape


def _concrete(name: str, shape: Sequence[int | str], samples: int, steps: int) -> list[int]:
    """Choose sizes for the open axes: batch first, time last where there are three or more."""
    sizes: list[int] = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0:
            sizes.append(samples)
        elif axis == len(shape) - 1 >= 2:
            sizes.append(steps)
        else:
            raise InputError(
                f"input {name}: axis {axis} of {_shape(shape)} is open, so spikes cannot be "
                f"generated; give them by --input"
            )
    return sizes


# -- output ----------------------------------------------------------------------------------


class _Console(Console):
    """A console that leaves a closed pipe to the group; rich would exit with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise again what rich has caught."""
        raise  # noqa: PLE0704


def _console(width: int | None = None) -> Console:
    # names are printed as they are: no [markup], no :emoji:, no guessed highlights
    return _Console(width=width, markup=False, emoji=False, highlight=False)


def _say(console: Console, text: str | Text) -> None:
    """Print a paragraph: wrapped between words in a terminal, one line in a pipe."""
    console.print(text, soft_wrap=not console.is_terminal)


def _facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print names and values, aligned."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        console.print(Text.assemble((f"{name:<{width}}", "bold"), "  ", value), soft_wrap=True)


def _table(head: Mapping[str, str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table at its natural width: names are never cut, in a pipe least of all.

    Args:
        head: title of each column -> "left" or "right"; a column without content is left out.
        rows: the cells.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    for i, (name, side) in enumerate(head.items()):
        if i in kept:
            table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    _console(width=10_000).print(table)


def _notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        _say(console, Text.assemble(("note: ", "yellow"), note))


def _size(size: int) -> str:
    if size < 10_000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 10_000_000 else f"{size / 1e6:.1f} MB"


def _shape(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _step(steps: Sequence[Sequence[float]]) -> str:
    """One step as a number, several as a range."""
    values = sorted({float(value) for part in steps for value in part})
    if len(values) > 1:
        return f"{values[0]:.3g}..{values[-1]:.3g}"
    exact = Fraction(values[0])
    return str(exact) if exact.denominator <= 1 << 15 else f"{values[0]:.4g}"


def _layer_row(layer: Mapping[str, Any]) -> list[str]:
    weight = "x".join(map(str, layer.get("weight_shape", [])))
    bits = str(layer.get("bits", "float")) if "quantized" in layer else ""
    return [
        str(layer.get("path") or "(the model)"),
        ("complex " if layer.get("complex") else "") + str(layer.get("kind", "")),
        weight,
        bits,
        _step(layer["steps"]) if layer.get("steps") else "",
        str(layer.get("regime", "")),
        _threshold(layer.get("threshold")),
    ]


def _threshold(value: Any) -> str:
    """One threshold as a number, several as a range; a readout has none."""
    if value is None:
        return ""
    values = sorted(value) if isinstance(value, list) else [value]
    return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:.3g}..{values[-1]:.3g}"


def _print_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    head = {
        "layer": "left",
        "kind": "left",
        "weights": "left",
        "bits": "right",
        "step": "right",
        "regime": "left",
        "threshold": "right",
    }
    _table(head, [_layer_row(layer) for layer in layers])


# -- commands --------------------------------------------------------------------------------


def _shapes(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> list[tuple[int, ...]]:
    """Parse each C or C,H,W."""
    shapes = []
    for value in values:
        parts = [part.strip() for part in value.split(",")]
        if len(parts) not in (1, 3) or not all(re.fullmatch(r"0*[1-9]\d*", p) for p in parts):
            raise click.BadParameter(
                f"{value!r} must be C or C,H,W of one sample, positive whole numbers without "
                f"batch and time, as in 1,8,8",
                context,
                parameter,
            )
        shapes.append(tuple(int(part) for part in parts))
    return shapes


class _Number(click.FloatRange):
    """A float in a range; NaN and infinity, which compare as no bound expects, are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


Decorated = Callable[..., Any]

_source = click.argument("source")


def _settings_of(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Parse each KEY=VALUE."""
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(
                f"{value!r} must be KEY=VALUE, as in delay_shift=true", context, parameter
            )
        settings[key.strip().replace("-", "_")] = text.strip()
    return settings


_settings = click.option(
    "--set",
    "settings",
    callback=_settings_of,
    metavar="KEY=VALUE",
    multiple=True,
    help="How a .net or .nir file is read: an argument of load_net or load_nir (repeatable).",
)
_weights = click.option(
    "--weights",
    metavar="CKPT.pt",
    help="Checkpoint to load first: a state_dict, or a dict with one under 'state_dict'.",
)
_providers = click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="Execution provider of ONNX Runtime, best first: cpu, cuda, or its full name "
    "(repeatable; default: cpu).",
)


def _inputs_option(help: str, *, required: bool) -> Callable[[Decorated], Decorated]:
    return click.option(
        "-i",
        "--input",
        "inputs",
        multiple=True,
        required=required,
        metavar="FILE",
        help=help,
    )


#: --native -> the argument of Session
_NATIVE: dict[str, bool | None] = {"auto": None, "yes": True, "no": False}


def _native_option(*more: str, help: str) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--native",
        type=click.Choice([*_NATIVE, *more]),
        default="auto",
        show_default=True,
        help=f"Native kernels: auto takes them where there are any; yes demands them; no runs the "
        f"functions that the file holds{help}.",
    )


def _full_names(providers: Sequence[str]) -> list[str] | None:
    return [_PROVIDERS.get(name.lower(), name) for name in providers] or None


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the version, and which native kernels there are."""
    if value and not context.resilient_parsing:
        click.echo(f"synapse-onnx {__version__}\n{native_kernels.status()}")
        context.exit()


@click.group(
    "synapse-onnx",
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Example:
  synapse-onnx export net.py:build --weights net.pt --shape 1,8,8 -o net.onnx
  synapse-onnx verify net.py:build net.onnx --weights net.pt
  synapse-onnx run net.onnx --input spikes.npy -o out.npz

\b
Exit codes: 0 done and equal, 1 the numbers differ, 2 the input or the call is
at fault.""",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and which native kernels there are, and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Compile trained spiking neural networks from torch to ONNX, and prove them equal."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command(
    epilog="""\b
Example: the function build in net.py returns the network
  synapse-onnx export net.py:build --weights net.pt --shape 1,8,8 -o net.onnx

\b
A network with two inputs, 64 channels and 3 images of 32x32
  synapse-onnx export mynets.fusion:Net --shape 64 --shape 3,32,32 -o fusion.onnx"""
)
@_source
@click.option("-o", "--output", required=True, metavar="MODEL.onnx", help="Model to write.")
@_weights
@_settings
@click.option(
    "--shape",
    "shapes",
    callback=_shapes,
    metavar="C[,H,W]",
    multiple=True,
    help="Shape of ONE sample without batch and time, as in 1,8,8 (repeat it for several inputs); "
    "a file of a network mostly says it.",
)
@click.option(
    "--opset",
    type=click.IntRange(21, 24),
    default=21,
    show_default=True,
    help="Version of the standard ONNX operators.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Time steps of the example input that the network is traced with.",
)
@click.option(
    "--static",
    is_flag=True,
    help="Fix the batch size to 1 and time to --steps; both are open by default.",
)
@click.option(
    "--streaming",
    is_flag=True,
    help="Make every state an input and an output, so that a sequence may come in chunks.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="NCT",
    show_default=True,
    help="Inputs and outputs of the file: time last, as in torch, or first, (T, N, C[, H, W]).",
)
@click.option(
    "--input-type",
    type=click.Choice(INPUT_TYPES),
    default="float32",
    show_default=True,
    help="Type of the file's inputs; uint8 for spikes and counts up to 255.",
)
def export(
    source: str,
    output: str,
    weights: str | None,
    settings: dict[str, str],
    shapes: list[tuple[int, ...]],
    opset: int,
    steps: int,
    static: bool,
    streaming: bool,
    layout: str,
    input_type: str,
) -> None:
    """Compile a torch network to one ONNX file.

    SOURCE is package.module:name or path/to/file.py:name, where name is a torch.nn.Module or a
    function (or class) without arguments that returns one. SOURCE's code is run. Or SOURCE is a
    file of a network that was trained elsewhere: network.net (lava-dl), graph.nir (NIR).

    The file holds standard operators only and runs in any ONNX Runtime. Nothing is compared
    here: that is what "synapse-onnx verify" does.
    """
    _check_target(output, ".onnx")
    module = _load(source, weights, settings)
    example = _random_spikes(
        [(1, *shape, steps) for shape in shapes or _known_shapes(module, source)], rate=0.3, seed=0
    )
    _match_arguments(module, example, source, "give --shape once for every argument")
    import torch

    tensors = [torch.from_numpy(array) for array in example]
    # a fault of forward() is plainer on numbers than in the tracer, which sees symbols; what
    # layers of ours refuse, the export says with their paths
    with _users_forward(source), contextlib.suppress(SynapseError), torch.no_grad():
        copy.deepcopy(module).eval()(*tensors)
    try:
        with _users_forward(source):
            model = synapse_onnx.export(
                module,
                tensors,
                output,
                streaming=streaming,
                dynamic=not static,
                layout=layout,
                opset=opset,
                input_type=input_type,
            )
    except ExportError as error:  # its advice is for callers from Python
        raise ExportError(str(error).replace("dynamic=False", "--static")) from error
    console = _console()
    metadata = _read_metadata(model)
    assert metadata is not None  # export has just written it
    _facts(
        console,
        {
            "wrote": output,
            "size": _size(os.path.getsize(output)),
            "regime": metadata.regime,
            "layers": str(len(metadata.layers)),
            **({"states": str(len(metadata.states))} if metadata.streaming else {}),
        },
    )
    if metadata.layers:
        console.print()
        _print_layers(metadata.layers)
        console.print()
    _notes(console, metadata.notes)
    again = ["synapse-onnx", "verify", source, output, *(["--weights", weights] if weights else [])]
    for key, value in settings.items():
        again += ["--set", f"{key}={value}"]
    console.print(Text.assemble("to compare it with torch: ", shlex.join(again)), soft_wrap=True)


@main.command(
    epilog="""\b
Example: on random spikes, then on recorded ones
  synapse-onnx verify net.py:build net.onnx --weights net.pt
  synapse-onnx verify net.py:build net.onnx --weights net.pt --input spikes.npy

\b
Exit codes: 0 equal, 1 the numbers differ, 2 the input or the call is at fault."""
)
@_source
@click.argument("model", metavar="MODEL.onnx")
@_weights
@_settings
@_inputs_option(
    "Inputs (N, C[, H, W], T) as .npy or .npz, one for every input of the model, in its order. "
    "Without it, random 0/1 spikes are generated.",
    required=False,
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Samples to generate.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Time steps to generate.",
)
@click.option(
    "--rate",
    type=_Number(0, 1),
    default=0.3,
    show_default=True,
    help="Probability of a spike in each generated value.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the generated spikes.",
)
@click.option(
    "--rtol",
    type=_Number(min=0),
    default=1e-5,
    show_default=True,
    help="Tolerance relative to the largest torch value, where equality cannot be demanded.",
)
@click.option(
    "--atol",
    type=_Number(min=0),
    default=0.0,
    show_default=True,
    help="Absolute tolerance, added to it.",
)
@_providers
@_native_option("both", help="; both compares once with each")
def verify(
    source: str,
    model: str,
    weights: str | None,
    settings: dict[str, str],
    inputs: tuple[str, ...],
    samples: int,
    steps: int,
    rate: float,
    seed: int,
    rtol: float,
    atol: float,
    providers: tuple[str, ...],
    native: str,
) -> None:
    """Compare a torch network with its ONNX model, layer by layer.

    SOURCE is what the model was exported from, with the same weights: package.module:name,
    path/to/file.py:name or a file of a network. SOURCE's code is run. Spikes must be equal
    wherever the arithmetic is exact; the table says for every layer what was demanded and what was
    found.
    """
    from synapse_onnx.runtime import load_model

    _check_source(source)
    proto = load_model(model)
    expected = _inputs(proto)
    kinds = [_dtype(kind) for kind, _ in expected.values()]
    metadata = _read_metadata(proto)
    if metadata is not None and metadata.input_type == "uint8":
        kinds = [np.dtype(np.float32)] * len(kinds)  # as the module takes them
    layout = metadata.layout if metadata else "NCT"
    if inputs:
        arrays = _read_arrays(inputs, list(expected))
        arrays = [
            np.ascontiguousarray(time_last(array, layout), dtype=kind)
            for array, kind in zip(arrays, kinds, strict=True)
        ]
    else:
        sizes = [
            _concrete(name, _time_last(shape, layout), samples, steps)
            for name, (_, shape) in expected.items()
        ]
        arrays = _random_spikes(sizes, rate=rate, seed=seed, dtypes=kinds)
    module = _load(source, weights, settings)
    _match_arguments(module, arrays, source, "it is not the network that the model was made from")
    import torch

    console, ok = _console(), True
    for choice in ("yes", "no") if native == "both" else (native,):
        with _users_forward(source):
            report = synapse_onnx.verify(
                module,
                proto,
                [torch.from_numpy(array) for array in arrays],
                rtol=rtol,
                atol=atol,
                providers=_full_names(providers),
                native=_NATIVE[choice],
            )
        if native == "both":
            _say(console, "with native kernels" if choice == "yes" else "\nwithout native kernels")
        _print_report(console, str(report), ok=report.ok)
        ok &= report.ok
    if not ok:
        raise click.exceptions.Exit(DIFFERENT)


def _print_report(console: Console, report: str, *, ok: bool) -> None:
    """Print a report's own table, coloured; sentences are wrapped, rows are not."""
    head, *lines, verdict = report.splitlines()
    console.print(Text(head, "bold"), soft_wrap=True)
    for line in lines:
        text = Text(line)
        if line[:1] in "✓✗":
            text.stylize("green" if line[0] == "✓" else "red", 0, 1)
            console.print(text, soft_wrap=True)
        else:
            text.stylize("yellow", 0, line.find(":") + 1)
            _say(console, text)
    _say(console, Text(verdict, "bold green" if ok else "bold red"))


def _streamed(
    session: Any, arrays: Sequence[Array], chunk: int | None, restore: str | None, save: str | None
) -> Any:
    """Run a streaming model chunk by chunk, from saved states and to saved states."""
    if not session.streaming:
        raise InputError(
            "the model was not exported for streaming; export it with --streaming, or leave out "
            "--chunk, --restore and --save"
        )
    views = [time_last(array, session.layout) for array in arrays]
    stream = session.stream(int(views[0].shape[0]) if views[0].ndim else 1)
    if restore is not None:
        stream.restore(restore)
    steps = max((view.shape[-1] for view in views if has_time(view.ndim)), default=1)
    parts = []
    for begin in range(0, steps, chunk or steps):
        end = begin + (chunk or steps)
        cut = (view[..., begin:end] if has_time(view.ndim) else view for view in views)
        parts.append(stream.run(*(time_first(view, session.layout) for view in cut)))
    if save is None:
        parts.append(stream.flush())
    else:
        stream.save(save)
    axis = 0 if session.layout == "TNC" else -1
    if len(session.outputs) == 1:
        return np.concatenate(parts, axis=axis)
    return tuple(np.concatenate(group, axis=axis) for group in zip(*parts, strict=True))


@main.command(
    epilog="""\b
Example:
  synapse-onnx run net.onnx --input spikes.npy -o out.npz
  python -c "import numpy; print(numpy.load('out.npz')['output'].shape)" """
)
@click.argument("model", metavar="MODEL.onnx")
@_inputs_option(
    "Input (N, C[, H, W], T) as .npy or .npz, one for every input of the model, in its order "
    "(repeatable; a single .npz with the inputs' names as keys is taken by name).",
    required=True,
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    help="File to write: .npz with the outputs' names as keys, or .npy for a single output.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="Stream the input in chunks of so many time steps (a model exported with --streaming).",
)
@click.option(
    "--restore",
    metavar="STATE.npz",
    help="Go on where --save left the sequence; streams.",
)
@click.option(
    "--save",
    metavar="STATE.npz",
    help="Save the states behind the input, for --restore; streams.",
)
@_providers
@_native_option(help="")
def run(
    model: str,
    inputs: tuple[str, ...],
    output: str,
    chunk: int | None,
    restore: str | None,
    save: str | None,
    providers: tuple[str, ...],
    native: str,
) -> None:
    """Run a model on arrays; needs ONNX Runtime, not torch."""
    from synapse_onnx.runtime import Session

    _check_target(output, ".npz", ".npy")
    session = Session(model, _full_names(providers), _NATIVE[native])
    if output.endswith(".npy") and len(session.outputs) != 1:
        raise InputError(
            f"{output} can hold one array and the model has {len(session.outputs)} outputs "
            f"({', '.join(session.outputs)}); give a name that ends in .npz"
        )
    given = _read_arrays(inputs, session.inputs)
    if chunk is None and restore is None and save is None:
        results = session.run(*given)
    else:
        if save is not None:
            _check_target(save, ".npz")
        results = _streamed(session, given, chunk, restore, save)
    arrays = results if isinstance(results, tuple) else (results,)
    for name, array in zip(session.outputs, arrays, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ModelError(f"output {name} of {model} is no array of numbers")
    named = dict(zip(session.outputs, arrays, strict=True))
    write_atomically(output, _npy(arrays[0]) if output.endswith(".npy") else _npz(named))
    console = _console()
    head = {"output": "left", "shape": "left", "type": "left", "mean": "right"}
    rows = [
        [name, _shape(array.shape), str(array.dtype), f"{array.mean():.6g}" if array.size else ""]
        for name, array in named.items()
    ]
    _table(head, rows)
    console.print(Text.assemble(("wrote", "bold"), "  ", output), soft_wrap=True)


@main.command(
    epilog="""\b
Example:
  synapse-onnx inspect net.onnx
  synapse-onnx inspect net.onnx --json > net.json"""
)
@click.argument("model", metavar="MODEL.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect(model: str, as_json: bool) -> None:
    """Show what a model holds: layers, inputs, outputs.

    Needs neither torch nor ONNX Runtime, and runs nothing.
    """
    from synapse_onnx.runtime import load_model

    proto = load_model(model)
    metadata = _read_metadata(proto)
    ends = {"inputs": _inputs(proto), "outputs": _outputs(proto)}
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
    console = _console()
    producer = f"{proto.producer_name} {proto.producer_version}".strip() or "not stated"
    facts = {
        "file": model,
        "size": _size(size),
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
    _facts(console, facts)
    exact = metadata.exact if metadata else ()
    console.print()
    head = {"": "left", "name": "left", "type": "left", "shape": "left", "exact": "left"}
    rows = [
        [side[:-1], name, kind, _shape(shape), "yes" if name in exact else ""]
        for side, values in ends.items()
        for name, (kind, shape) in values.items()
    ]
    _table(head, rows)
    if metadata and metadata.layers:
        console.print()
        _print_layers(metadata.layers)
        console.print()
        _table(
            {"layer": "left", "its numbers in ONNX Runtime": "left"},
            [
                [str(layer["path"]) or "(the model)", str(layer["arithmetic"])]
                for layer in metadata.layers
                if "arithmetic" in layer
            ],
        )
    if states:
        console.print()
        _table(
            {"state": "left", "type": "left", "shape": "left", "start": "right"},
            [
                [
                    str(state["input"]),
                    str(state["dtype"]),
                    _shape(["N", *state["shape"][1:]]),
                    f"{state['start']:g}",
                ]
                for state in states
            ],
        )
    if notes:
        console.print()
    _notes(console, notes)
