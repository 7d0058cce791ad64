"""lava-dl's ``.net`` files: trained networks for Loihi, as HDF5.

A file holds ``layer/0`` to ``layer/n-1``; each has a ``type``, a ``shape`` (C, H, W), parameters
of its synapse with integer weights in 64ths, and a group ``neuron``. The arithmetic is that of
:mod:`synapse_onnx.ops.arithmetic.loihi`. Source of the format: lava-dl, ``netx/README.md``,
``netx/hdf5.py`` and the methods ``export_hdf5`` of ``slayer/block/base.py``.
"""

from __future__ import annotations

import os

from torch import nn

from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._net.layer import layers_of
from synapse_onnx.readers._net.network import build_network
from synapse_onnx.readers._registry import Reader, register

__all__ = ["load_net"]


def load_net(
    path: str | os.PathLike[str], delay_shift: bool = False, decimation: int | None = None
) -> nn.Module:
    """Read a network that lava-dl wrote, as a torch module in the loihi regime.

    Every layer is a block of :mod:`synapse_onnx.block`, a child of ``layers`` by the name
    ``<type>_<number>``. Input and output are in lava-dl's units: a weight of 64 is 1. Neurons
    whose threshold is beyond their 24 bits (lava-dl's Affine blocks) are readouts, and the output
    of a layer without a neuron is its current.

    Args:
        path: the file.
        delay_shift: delay the spikes of every spiking layer by a time step, as lava-dl does in
            training by default; never those of sigma-delta layers. The file does not say whether.
        decimation: time steps that a time decimation averages; lava-dl writes it as an average
            and leaves the number out.

    Returns:
        A module that takes (N, C[, H, W], T); in evaluation mode.

    Raises:
        InputError: no such file, no ``.net`` file, a damaged one, or h5py is not installed; the
            message names file, layer and key.
        ShapeError: weights, shapes and layers do not fit each other.
    """
    file = os.fspath(path)
    with open_hdf5(path, "lava", "load_net") as hdf5:
        layers = list(layers_of(file, hdf5))
        network = build_network(file, layers, delay_shift=delay_shift, decimation=decimation)
        return network.eval()


register(
    Reader(
        name="lava-dl",
        suffixes=(".net",),
        extra="lava",
        load=load_net,
        doc="trained networks of lava-dl for Loihi, in the loihi regime",
    )
)
