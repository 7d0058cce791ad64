"""onnxruntime-web, which runs a model in a browser: found in the install, or fetched from npm.

The build of an install fetches it if it can; ``native/web.cmake`` reads the version here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

from synapse_onnx.errors import InputError
from synapse_onnx.files import write_folder

__all__ = ["VERSION", "fetch_runtime", "find_runtime"]

#: version of the npm package
VERSION = "1.30.0"

_URL = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
#: bound on the size of the package, in bytes
_LARGEST = 40 << 20

#: the WebAssembly build, its program, and the package's description
SCRIPT = "ort.wasm.bundle.min.mjs"
PROGRAM = "ort-wasm-simd-threaded.wasm"
_MEMBERS = {
    SCRIPT: f"package/dist/{SCRIPT}",
    PROGRAM: f"package/dist/{PROGRAM}",
    "package.json": "package/package.json",
}

_VARIABLE = "SYNAPSE_ONNX_WEB_FOLDER"


def _cache() -> Path:
    """Return the folder of the user's cache for this version."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "synapse-onnx" / f"onnxruntime-web-{VERSION}"


def _whole(folder: Path) -> bool:
    """Whether a folder holds the files of this version."""
    try:
        package_json = json.loads((folder / "package.json").read_text("utf-8"))
        return package_json["version"] == VERSION and all(
            (folder / name).is_file() for name in _MEMBERS
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_runtime() -> Path:
    """Return the folder that holds onnxruntime-web.

    Raises:
        InputError: there is none, with the command that fetches it.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        if _whole(Path(named)):
            return Path(named).absolute()
        raise InputError(
            f"{_VARIABLE} is {named}, where there is no onnxruntime-web {VERSION}; fetch it by "
            f"`synapse-onnx play --fetch-runtime`, or leave the variable unset"
        )
    # an editable install has two folders: the checkout's, and site-packages with what was built
    package = sys.modules[__name__.partition(".")[0]]
    for folder in (*(Path(path, "_web") for path in package.__path__), _cache()):
        if _whole(folder):
            return folder
    raise InputError(
        f"onnxruntime-web {VERSION}, which runs a model in a browser, is not here; fetch it by "
        f"`synapse-onnx play --fetch-runtime` (33 MB from the npm registry, once)"
    )


def fetch_runtime(url: str | None = None) -> Path:
    """Fetch onnxruntime-web from the npm registry, whole or not at all.

    Its SHA-512 is compared with the one in this file before anything of it is used.

    Args:
        url: another address of the package.

    Returns:
        The folder that holds it: that of the environment variable SYNAPSE_ONNX_WEB_FOLDER, or one
        in the user's cache.

    Raises:
        InputError: the registry cannot be reached, the file has another SHA-512, or the folder
            cannot be written.
    """
    url = url or _URL
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            data = answer.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} cannot be fetched: {reason}") from error
    if hashlib.sha512(data).hexdigest() != _SHA512:
        raise InputError(
            f"what {url} gave is not onnxruntime-web {VERSION}: its SHA-512 is another, so nothing "
            f"of it was kept; try again, or from another network"
        )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {}
        for name, member in _MEMBERS.items():
            file = archive.extractfile(member)
            assert file is not None  # the archive is the one that was pinned
            files[name] = file.read()
    named = os.environ.get(_VARIABLE)
    folder = Path(named).absolute() if named else _cache()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    write_folder(folder, files, may_replace=lambda old: set(os.listdir(old)) <= set(_MEMBERS))
    return folder
