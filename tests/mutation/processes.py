"""Jobs in forked processes, some at a time, with bounds on their time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from forked import leave

#: how many times its processor seconds a job may take by the clock: others use the machine as well
PATIENCE = 60
#: bytes of memory that a mutant may take
MEMORY = 16 << 30


@dataclass
class Job:
    """Work for a process of its own, which returns something that JSON holds.

    It may take so many processor seconds; ``PATIENCE`` times as long by the clock.
    """

    work: Callable[[Path], Any]
    seconds: float
    done: Callable[[Any], None]
    pid: int = 0
    begun: float = 0.0
    folder: str = ""


def run_all(jobs: Sequence[Job], workers: int) -> None:
    """Run jobs in forked processes, so many at once; each is told of its end here.

    The result is ``{"ended": ...}`` where a process died or was stopped after its time.
    """
    waiting, running = list(jobs), list[Job]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(waiting.pop(0)))
            time.sleep(0.02)
            for job in list(running):
                late = time.monotonic() - job.begun > PATIENCE * job.seconds
                if late:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(job.pid, signal.SIGKILL)
                pid, status = os.waitpid(job.pid, 0 if late else os.WNOHANG)
                if pid == 0:
                    continue
                running.remove(job)
                result = Path(job.folder, "result.json")
                if late:
                    found: Any = {"ended": "stopped after its time"}
                elif status == 0 and result.exists():
                    found = json.loads(result.read_text())
                else:
                    log = Path(job.folder, "log").read_text(errors="replace")
                    found = {"ended": f"wait status {status}", "log": log[-3000:]}
                shutil.rmtree(job.folder, ignore_errors=True)
                job.done(found)
    finally:
        for job in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            os.waitpid(job.pid, 0)
            shutil.rmtree(job.folder, ignore_errors=True)


def _start(job: Job) -> Job:
    job.folder, job.begun = tempfile.mkdtemp(prefix="mutate-"), time.monotonic()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        job.pid = os.fork()
    if job.pid == 0:
        _child(job.work, Path(job.folder), int(job.seconds))
    return job


def _child(work: Callable[[Path], Any], folder: Path, seconds: int) -> NoReturn:
    def limited() -> None:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
        (folder / "result.json").write_text(json.dumps(work(folder)))

    leave(limited, failed=1)
