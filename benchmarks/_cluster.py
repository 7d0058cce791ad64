"""Files of a folder, run in this process and by workers of Ray that have started already."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks._measure import turns
from synapse_onnx.cli import _engines
from synapse_onnx.cli._scoring import FileScorer, Settings


def cluster_times(
    model: Path, workers: Sequence[int], files: int, seconds: float
) -> dict[str, float]:
    """Return seconds for a folder, by who runs it; every worker, and "1 thread", has one thread.

    Args:
        model: the digits network.
        workers: numbers of workers.
        files: how many files, of 64 samples and 150 steps each.
        seconds: time to spend.
    """
    import ray

    rng = np.random.default_rng(0)
    # in memory where that can be: a disk that others write to would be what is timed
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        source, target = Path(name, "in"), Path(name, "out")
        source.mkdir()
        target.mkdir()
        for i in range(files):
            np.save(source / f"{i:04}.npy", rng.random((64, 1, 8, 8, 150)) < 0.3)
        arguments = (model.read_bytes(), str(model), Settings(), None, None)
        alone = {
            "local, 1 thread": FileScorer(*arguments, 1),
            "local": FileScorer(*arguments, None),
        }
        jobs = _engines.jobs_of(str(source), str(target), ".npy")
        runs = {
            name: lambda scorer=scorer: _engines.locally(scorer, jobs, lambda number: None)
            for name, scorer in alone.items()
        }
        ray.init(
            address="local", num_cpus=max(workers), include_dashboard=False,
            log_to_driver=False, logging_level="ERROR", object_store_memory=256 << 20,
        )  # fmt: skip
        try:
            given = [ray.put((*arguments, 1))]
            make = ray.remote(_engines._Worker).options(num_cpus=1)
            actors = [make.remote(FileScorer) for _ in range(max(workers))]
            ray.get([actor.score.remote(given, *jobs[0]) for actor in actors])
            for number in workers:
                runs[f"ray, {number}"] = lambda some=actors[:number]: _engines._work(
                    ray, some, given, jobs, lambda number: None
                )
            return turns(runs, seconds)
        finally:
            ray.shutdown()
