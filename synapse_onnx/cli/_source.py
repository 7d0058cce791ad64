"""SOURCE: the network of a command, as code or as a file, and its checkpoint."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synapse_onnx import errors
from synapse_onnx.cli._group import few, gist, reason
from synapse_onnx.cli._output import print_note
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.model.limits import check_archive, check_file

if TYPE_CHECKING:
    from torch import nn

    from synapse_onnx.readers import Reader

__all__ = ["check_source", "known_shapes", "load_network", "match_arguments", "users_forward"]


@contextlib.contextmanager
def _users_code(source: str) -> Iterator[None]:
    """Turn errors of SOURCE's own code into a sentence about SOURCE."""
    try:
        yield
    except MemoryError:
        raise
    except SynapseError as error:  # a sentence already
        raise InputError(f"{source}: {error}{_place(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{source} raised {type(error).__name__}: {gist(error)}{_place(error)}"
        ) from error


@contextlib.contextmanager
def users_forward(source: str) -> Iterator[None]:
    """Turn errors of SOURCE's ``forward`` into a sentence; errors of our own code pass."""
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
    """Return the file and line of the user's code that raised an exception."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    import torch

    libraries = tuple(os.path.dirname(str(module.__file__)) for module in (errors, torch))
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        own = "site-packages" in file or not file.startswith(sysconfig.get_path("stdlib"))
        if os.path.isfile(file) and own and not file.startswith(libraries):
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


def check_source(source: str) -> None:
    """Refuse a SOURCE of the wrong form before anything is read."""
    try:
        _split(source)
    except InputError:
        from synapse_onnx.readers import reader_for  # which loads torch

        if reader_for(source) is None:
            raise


def load_network(
    source: str, weights: str | None, settings: Mapping[str, str], *, quiet: bool = False
) -> nn.Module:
    """Read the file SOURCE; or import it, make its network, and load a checkpoint into it.

    What the reader of a file assumes is printed as a note; with ``quiet`` to stderr.
    """
    from synapse_onnx.readers import reader_for

    reader = reader_for(source)
    if reader is not None:
        if weights is not None:
            raise InputError(f"{source} holds weights of its own; leave --weights away")
        return _read(reader, source, settings, quiet)
    if settings:
        raise InputError(f"--set is for files of networks, and {source} is code")
    where, name = _split(source)
    from torch import nn  # before SOURCE's folder can hide a module that torch needs

    is_file = where.endswith(".py") or "/" in where or os.sep in where
    value: Any = (_import_file if is_file else _import_module)(where, source)
    for part in name.split("."):
        with _users_code(source):
            known, exists = dir(value), hasattr(value, part)
        if not exists:
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


def _read(reader: Reader, source: str, settings: Mapping[str, str], quiet: bool) -> nn.Module:
    """Read a file of a network; what its reader assumes becomes a note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        module = reader.read(source, settings)
    for warning in caught:
        if warning.category is UserWarning and quiet:
            click.echo(f"note: {warning.message}", err=True)
        elif warning.category is UserWarning:
            print_note(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return module


def _import_file(where: str, source: str) -> Any:
    path = Path(where)
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "no such file"
        raise InputError(f"SOURCE {source!r}: {where} cannot be read: {why}")
    if path.suffix != ".py":
        raise InputError(f"SOURCE {source!r}: {where} must be a .py file")
    sys.path.insert(0, str(path.parent.resolve()))  # as "python file.py" does
    # the module of a file json.py must not replace json
    name = f"_synapse_onnx_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
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

    check_file(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_archive(archive, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged files
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, SynapseError):
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    except Exception as error:  # a damaged or foreign file can raise any class
        what = "is no checkpoint of torch, or a damaged one; write one"
        if re.search("Unsupported (global|class)", str(error)):
            what = "holds Python objects, which are not loaded; save it again"
        raise InputError(f"{path} {what} by torch.save(module.state_dict(), path)") from error
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
    except Exception as error:  # RuntimeError of torch; other classes if an entry is no tensor
        raise InputError(f"{path} does not fit {source}: {_mismatch(error)}") from error


def _mismatch(error: Exception) -> str:
    """Condense the lines of ``load_state_dict`` to a part of a sentence."""
    text = str(error)
    parts = []
    for head, word in (("Missing key", "missing"), ("Unexpected key", "unexpected")):
        match = re.search(rf"{head}\(s\) in state_dict: (.*?)\.\s*$", text, re.MULTILINE)
        if match:
            names = re.findall(r'"([^"]*)"', match[1])
            parts.append(f"{word} {few(names)}")
    sizes = re.findall(
        r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)", text
    )
    if sizes:
        parts.append(
            few([f"{name} is ({file}) and must be ({ours})" for name, file, ours in sizes], 2)
        )
    return "; ".join(parts) or gist(error)


def known_shapes(module: nn.Module, source: str) -> list[tuple[int, ...]]:
    """Return the shapes of one sample of every input, if the file of a network contains them."""
    shapes: Sequence[tuple[int, ...] | None] = getattr(module, "input_shapes", [])
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes):
        raise InputError(
            f"{source} does not say the shape of its input; give --shape C or --shape C,H,W once "
            f"for every input"
        )
    return known


def match_arguments(module: nn.Module, arrays: Sequence[object], source: str, hint: str) -> None:
    """Refuse the wrong number of inputs before torch does."""
    signature = inspect.signature(module.forward)
    try:
        signature.bind(*arrays)
    except TypeError as error:
        raise InputError(
            f"forward{signature} of {source} does not take {len(arrays)} inputs; {hint}"
        ) from error
