"""Runs the blocks of a documentation page in their order, as a reader would paste them.

``python`` blocks share one namespace; ``bash`` blocks run in a shell that ends at the first
failure; a block with a caption is written to the file of that name. An ``output`` block behind a
block is what it prints, where … stands for anything, on a line of its own for any lines. What
installs is left out: ``.ci/run`` does that. A block behind a comment ``<!-- requires: norse -->``
is left out, with what it prints, where that module is not installed. Run as ``python pages.py
PAGE.md`` in an empty folder. PAGES_BIN names another folder for the commands that the shell finds
first.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import linecache
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?:<!-- requires: (?P<needs>.*) -->\n)?```(?P<info>.*)\n(?P<text>(?s:.*?))^```$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, first line, options of a directive, what it requires."""

    language: str
    text: str
    line: int
    options: dict[str, str]
    needs: tuple[str, ...] = ()


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page in Markdown."""
    for found in _FENCE.finditer(page):
        info, text = found["info"].strip(), found["text"]
        options = {}
        if info.startswith("{"):
            directive, _, language = info.partition(" ")
            if directive != "{code-block}":
                continue
            while option := re.match(r":(\w+): (.*)\n", text):
                options[option[1]] = option[2]
                text = text[option.end() :]
            info, text = language, text.lstrip("\n")
        line = page.count("\n", 0, found.start("text")) + 1
        yield Block(info, text, line, options, _listed(found["needs"] or ""))


def needs(page: str) -> list[str]:
    """What the head of a page says that it requires."""
    head = re.match(r"---\nrequires: \[(.*)\]\n---\n", page)
    return list(_listed(head[1])) if head else []


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def missing(need: str) -> str | None:
    """Why a page cannot run here: a program, a header, a module that is not there."""
    if need.endswith(".h"):
        folder = os.environ.get("ONNXRUNTIME_INCLUDE_DIR", "/usr/include/onnxruntime")
        return None if (Path(folder) / need).exists() else f"no {need} in {folder}"
    if need == "onnxruntime-web":
        return _no_runtime()
    if need == "g++":
        return None if shutil.which(need) else "no g++"
    return None if importlib.util.find_spec(need) else f"{need} is not installed"


def _no_runtime() -> str | None:
    from synapse_onnx import InputError
    from synapse_onnx.deploy import play

    try:
        play.find_runtime()
    except InputError as error:
        return str(error)
    return None


def fits(expected: str, found: str) -> bool:
    """Whether lines are those expected; blanks at the end of a line do not count."""
    parts = []
    for line in expected.splitlines():
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), found) is not None


def run(path: Path) -> None:
    """Run a page; a block that fails, or prints something else, ends it with a sentence."""
    page = path.read_text()
    namespace: dict[str, object] = {"__name__": "__main__"}
    sys.path.insert(0, "")
    printed, place, left_out = "", "", False
    for block in blocks(page):
        if block.language == "output" and left_out:
            continue
        reasons = [reason for need in block.needs if (reason := missing(need))]
        left_out = bool(reasons)
        if left_out:
            print(f"{path}:{block.line} is left out: {reasons[0]}", file=sys.stderr)
        elif block.language == "output":
            if not fits(block.text, printed):
                sys.exit(f"{place} should print\n{block.text}and prints\n{printed}")
        else:
            place = f"{path}:{block.line}"
            printed = _printed(block, place, namespace, printed)


def _printed(block: Block, place: str, namespace: dict[str, object], before: str) -> str:
    """Run a block and return what it prints; of one that does not run, what was printed before."""
    if "caption" in block.options:
        Path(block.options["caption"]).write_text(block.text)
    elif block.language == "python":
        linecache.cache[place] = (len(block.text), None, block.text.splitlines(True), place)
        try:
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(block.text, place, "exec"), namespace)
        except Exception:  # shown with the block's own lines, which the interpreter would not
            sys.exit(traceback.format_exc())
        return stdout.getvalue()
    elif block.language == "bash" and "pip install" not in block.text:
        return _shell(block.text, place)
    return before


def _shell(text: str, place: str) -> str:
    bin = os.environ.get("PAGES_BIN", os.path.dirname(sys.executable))
    # not `bash`: Windows has another one of that name
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", text],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"},
    )
    if done.returncode:
        sys.exit(f"{place} ends with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    run(Path(sys.argv[1]))
