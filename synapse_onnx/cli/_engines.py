"""Where files are run: in this process, or by workers of a Ray cluster."""

from __future__ import annotations

import io
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from synapse_onnx._extra import needed
from synapse_onnx.cli._group import gist
from synapse_onnx.cli._scoring import FileScorer
from synapse_onnx.errors import InputError, SynapseError

__all__ = ["ENGINES", "Job", "jobs_of", "locally", "on_ray"]

ENGINES = ("local", "ray")

#: endings of files that are run
_SUFFIXES = (".npy", ".npz", ".csv")

#: times that a file is tried again when its worker was lost
_RETRIES = 3

#: seconds within which the first worker has to start; a busy machine takes a minute
_START = 300.0

#: seconds within which a cluster has to answer
_CONNECT = 10.0


class Job(NamedTuple):
    """A file to run, and the file to write; absolute paths, for workers have other folders."""

    source: str
    target: str


def jobs_of(folder: str, output: str, suffix: str) -> list[Job]:
    """Return a job for every file of a folder, by name; files that are no arrays are left out.

    Raises:
        InputError: nothing to run, two files for one result, or a folder that cannot be used.
    """
    if output.endswith((".npz", ".npy")):
        raise InputError(
            f"{output} is a file's name, and --input is a folder; give -o a folder as well"
        )
    source, target = Path(folder).absolute(), Path(output).absolute()
    try:
        names = sorted(path.name for path in source.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    names = [name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")]
    if not names:
        raise InputError(f"the folder {folder} is empty: it holds no .npy, .npz or .csv file")
    seen: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in seen:
            raise InputError(
                f"{seen[stem]} and {name} of {folder} would both be written to {stem}{suffix}; "
                f"rename one of them"
            )
        seen[stem] = name
    if target.exists() and not target.is_dir():
        raise InputError(f"{output} cannot be written: it is a file, and --input is a folder")
    if target.resolve() == source.resolve():
        raise InputError(f"{output} is the folder of the inputs; give another for the outputs")
    if not target.parent.is_dir():
        raise InputError(f"{output} cannot be written: there is no folder {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{output} cannot be written: the folder is read-only")
    return [Job(str(source / name), str(target / f"{Path(name).stem}{suffix}")) for name in names]


def locally(scorer: FileScorer, jobs: Sequence[Job], advance: Callable[[int], None]) -> str:
    """Run the files one after the other in this process; return who did it, in words."""
    for job in jobs:
        scorer.score(*job)
        advance(1)
    return "local"


def on_ray(
    make: type[FileScorer],
    arguments: Sequence[Any],
    jobs: Sequence[Job],
    advance: Callable[[int], None],
    *,
    workers: int | None = None,
    address: str | None = None,
    gpu: bool = False,
) -> str:
    """Run the files on workers of a Ray cluster, one core each; return who did it, in words.

    A worker that dies is started again by Ray, and so is what it had not finished.

    Args:
        make: class of the workers.
        arguments: what its constructor takes.
        jobs: the files.
        advance: called with 1 for every file that is done.
        workers: how many; as many as the cluster has cores, and files at most, by default.
        address: address of the cluster; by default that of RAY_ADDRESS, else workers are started
            on this machine.
        gpu: whether a worker needs a GPU.

    Raises:
        InputError: ray is not installed.
        SynapseError: no cluster, no worker, a worker that died again and again, or what
            ``FileScorer.score`` raises.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a warning of what will be
    ray = needed("ray", "ray", "--engine ray")
    # Ray prints tasks that it tries again to stdout, with tracebacks
    quiet = redirect_stdout(io.StringIO())
    with quiet, _cluster(ray, address or os.environ.get("RAY_ADDRESS"), workers):
        resources = ray.cluster_resources()
        room = int(min(resources.get("CPU", 0), resources.get("GPU", 0) if gpu else len(jobs)))
        if room < 1:
            raise SynapseError(f"the cluster has no {'GPU' if gpu else 'CPU'} for a worker")
        number = min(workers or room, room, len(jobs))
        actor = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=_RETRIES
        )
        actors = [actor.remote(make) for _ in range(number)]
        try:
            _work(ray, actors, [ray.put(tuple(arguments))], jobs, advance)
        finally:
            for one in actors:
                ray.kill(one)
    lost = [job.target for job in jobs if not os.path.exists(job.target)]
    if lost:
        raise SynapseError(
            f"a worker has written {lost[0]}, which is not there on this machine; the folders must "
            f"be on storage that all machines of the cluster share"
        )
    return f"ray, {number} worker{'s'[: number != 1]}"


class _Worker:
    """What runs on a worker: a scorer, made when the first file comes, also after a restart.

    Its arguments are fetched then. As arguments of its own constructor Ray would not promise to
    have them for a restart.
    """

    def __init__(self, make: type[FileScorer]) -> None:
        self.make = make
        self.scorer: FileScorer | None = None

    def score(self, arguments: Sequence[Any], source: str, target: str) -> None:
        """Run a file; a reference within a list is not fetched before it is asked for."""
        if self.scorer is None:
            import ray

            self.scorer = self.make(*ray.get(arguments[0]))
        self.scorer.score(source, target)


def _work(
    ray: Any,
    actors: Iterable[Any],
    arguments: Sequence[Any],
    jobs: Sequence[Job],
    advance: Callable[[int], None],
) -> None:
    """Give every worker that is there a file at a time: one that kills it takes no other along."""
    left = iter(jobs)
    pending: dict[Any, tuple[Any, Job | None]] = {
        actor.__ray_ready__.remote(): (actor, None) for actor in actors
    }
    done, started = 0, False
    while done < len(jobs):  # a worker that never starts is not waited for
        ready, _ = ray.wait(list(pending), timeout=None if started else _START)
        if not ready:
            free = ray.available_resources().get("CPU", 0)
            raise SynapseError(
                f"no worker has started within {_START:g} seconds; {free:g} cores of the cluster "
                f"are free"
            )
        for reference in ready:
            actor, job = pending.pop(reference)
            _result(ray, reference, job)
            started = True
            if job is not None:
                done += 1
                advance(1)
            if (following := next(left, None)) is not None:
                pending[actor.score.remote(arguments, *following)] = (actor, following)


def _result(ray: Any, reference: Any, job: Job | None) -> None:
    """Take the result of a worker; say what has failed where there is none."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SynapseError):
            raise error.cause from None
        if isinstance(error.cause, MemoryError):
            raise SynapseError("a worker has not enough memory; give a smaller --batch") from None
        raise SynapseError(f"a worker failed: {_last(error)}") from error
    except ray.exceptions.RayError as error:
        if job is None:
            raise SynapseError(
                f"a worker cannot start: {_last(error)}; the same synapse-onnx[ray] must be "
                f"installed on all machines of the cluster"
            ) from error
        raise SynapseError(
            f"{job.source}: the worker died, {_RETRIES + 1} times in a row; it may need more "
            f"memory than there is, then give a smaller --batch"
        ) from error


def _last(error: BaseException) -> str:
    """Last line of a message, which is the exception behind a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return gist(RuntimeError(lines[-1])) if lines else type(error).__name__


@contextmanager
def _cluster(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """Join a cluster, or start one on this machine, and leave it; one that is joined stays."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {}
    if address in (None, "local"):
        options = {
            "num_cpus": workers,
            "object_store_memory": 256 << 20,
            "include_dashboard": False,
        }
    else:
        _reach(str(address))
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options
        )
    except Exception as error:  # of many classes, and different ones from version to version
        where = f"the cluster at {address}" if address else "a Ray cluster on this machine"
        raise SynapseError(f"{where} cannot be used: {gist(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Refuse an address where nobody answers: Ray would try it for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InputError(
            f"{address!r} is no address of a cluster; give HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise SynapseError(f"no cluster answers at {address}: {error.strerror or error}") from error
