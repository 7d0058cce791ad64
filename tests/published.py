"""Networks that others published, where they are, and the package neurobench on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporters._published import REFERENCE

#: networks of the NIR paper and of NeuroBench, which are not part of this project
FOLDER = REFERENCE


def neurobench_of(
    network: nn.Module, inputs: Tensor, call: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    """Return the figures of the package neurobench on one batch (N, ...), or skip without it.

    ``call`` runs the network on the batch.
    """
    pytest.importorskip("neurobench", reason="neurobench is not installed: see peers.txt")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics import static, workload
    from neurobench.models import SNNTorchModel
    from torch.utils.data import DataLoader, TensorDataset

    class Called(SNNTorchModel):
        """Its ``__call__`` loops over single steps; these networks may loop themselves."""

        def __call__(self, data: Tensor) -> Tensor:
            with torch.no_grad():
                return call(data)

    metrics = [
        [static.Footprint, static.ConnectionSparsity],
        [workload.ActivationSparsity, workload.SynapticOperations, workload.MembraneUpdates],
    ]
    loader = DataLoader(TensorDataset(inputs, torch.zeros(len(inputs))), batch_size=len(inputs))
    results: dict[str, Any] = Benchmark(Called(network), loader, [], [], metrics).run(quiet=True)
    return results
