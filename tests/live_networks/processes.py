"""Measures networks in a process of its own, so that none can stop the others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool

import torch

from .collection import frameworks
from .measure import Measured, measure

__all__ = ["measured"]

#: seconds after which a network is given up
LIMIT = 600


def measured(
    framework: str, names: Sequence[str], *, verify: bool, whole: bool, bits: bool
) -> Iterator[Measured]:
    """Measure networks one after the other; the process is replaced if one brings it down."""
    pool = None
    for name in names:
        if pool is None:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, context, _start)
        try:
            yield pool.submit(_one, framework, name, verify, whole, bits).result(LIMIT)
            continue
        except TimeoutError:
            sentence = f"no result after {LIMIT} s"
        except BrokenProcessPool:
            sentence = "the process ended"
        for process in (pool._processes or {}).values():
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        pool = None
        yield Measured(framework, name, sentence=sentence)
    if pool is not None:
        pool.shutdown()


def _start() -> None:
    torch.set_num_threads(1)


def _one(framework: str, name: str, verify: bool, whole: bool, bits: bool) -> Measured:
    network = frameworks()[framework].networks[name]
    return measure(framework, network, verify=verify, whole=whole, bits=bits)
