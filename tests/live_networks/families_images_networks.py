"""Transformers, residual networks and a detector of recent papers, small, over (T, N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .families_neurons_networks import FRAMEWORK, Levels, Lif
from .network import Network, frames

__all__ = ["FRAMEWORK", "NETWORKS"]


class Each(nn.Sequential):
    """Layers for (N, ...) over (T, N, ...): time and batch are one axis meanwhile."""

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        y: Tensor = super().forward(x.flatten(0, 1))
        return y.view(steps, batch, *y.shape[1:])


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> Each:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return Each(conv, nn.BatchNorm2d(outputs))


def _tokens(inputs: int, outputs: int) -> Each:
    """A linear layer of tokens, (T, N, C, L), as authors write it: a convolution of size 1."""
    return Each(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))


class Patches(nn.Module):
    """Spiking patch splitting: convolutions, pools, and an encoding of positions."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(inputs, width // 2), _conv(width // 2, width)
        self.neuron1, self.neuron2, self.neuron3 = Lif(), Lif(), Lif()
        self.pool = Each(nn.MaxPool2d(3, 2, 1))
        self.position = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.neuron1(self.conv1(x)))
        x = self.pool(self.neuron2(self.conv2(x)))
        return x + self.neuron3(self.position(x))


class SelfAttention(nn.Module):
    """Spiking self-attention (Spikformer, Zhou et al. 2023): q kᵀ v of spikes, no softmax."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (_tokens(width, width) for _ in range(3))
        self.q_lif, self.k_lif, self.v_lif, self.attn_lif = Lif(), Lif(), Lif(), Lif()
        self.proj, self.proj_lif = _tokens(width, width), Lif()

    def _heads(self, x: Tensor) -> Tensor:
        t, n, c, length = x.shape
        return x.transpose(2, 3).reshape(t, n, length, self.heads, c // self.heads).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        t, n, c, length = x.shape
        q = self._heads(self.q_lif(self.q(x)))
        k = self._heads(self.k_lif(self.k(x)))
        v = self._heads(self.v_lif(self.v(x)))
        y = (q @ k.transpose(-2, -1)) @ v * 0.25
        y = self.attn_lif(y.transpose(2, 3).reshape(t, n, length, c).transpose(2, 3))
        out: Tensor = self.proj_lif(self.proj(y))
        return out


class Linear(nn.Module):
    """The same with linear cost: kᵀ v first, a matrix of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (_tokens(width, width) for _ in range(3))
        self.q_lif, self.k_lif, self.v_lif, self.attn_lif = Lif(), Lif(), Lif(), Lif()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_lif(self.q(x)), self.k_lif(self.k(x)), self.v_lif(self.v(x))
        y: Tensor = self.attn_lif((v @ k.transpose(-2, -1)) @ q * 0.25)
        return y


class Driven(nn.Module):
    """Spike-driven self-attention (Yao et al. 2023): masks and sums of columns, no products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head_lif = Lif()
        self.q, self.k, self.v = (_tokens(width, width) for _ in range(3))
        self.q_lif, self.k_lif, self.v_lif, self.talk_lif = Lif(), Lif(), Lif(), Lif()
        self.proj = _tokens(width, width)

    def forward(self, x: Tensor) -> Tensor:
        s = self.head_lif(x)
        q, k, v = self.q_lif(self.q(s)), self.k_lif(self.k(s)), self.v_lif(self.v(s))
        mask = self.talk_lif((k * v).sum(dim=-1, keepdim=True))
        return x + self.proj(q * mask)


class TokenAttention(nn.Module):
    """Q-K attention (QKFormer, Zhou et al. 2024): some tokens, or channels, of k pass."""

    def __init__(self, width: int, axis: int = 2) -> None:
        super().__init__()
        self.axis = axis
        self.q, self.k, self.proj = (_tokens(width, width) for _ in range(3))
        self.q_lif, self.k_lif, self.attn_lif, self.proj_lif = Lif(), Lif(), Lif(), Lif()

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q_lif(self.q(x)), self.k_lif(self.k(x))
        mask = self.attn_lif(q.sum(dim=self.axis, keepdim=True))
        out: Tensor = self.proj_lif(self.proj(mask * k))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int, make: Callable[[], nn.Module] = Lif) -> None:
        super().__init__()
        self.fc1, self.fc2 = _tokens(width, 2 * width), _tokens(2 * width, width)
        self.neuron1, self.neuron2 = make(), make()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.neuron2(self.fc2(self.neuron1(self.fc1(x))))
        return out


class Transformer(nn.Module):
    """Patches, a block of attention and an MLP with sums of spikes, a linear head."""

    def __init__(self, attention: Callable[[int], nn.Module], width: int = 16) -> None:
        super().__init__()
        self.patches = Patches(2, width)
        self.attention, self.mlp = attention(width), Mlp(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(3)
        x = x + self.attention(x)
        x = x + self.mlp(x)
        out: Tensor = self.head(x.mean(3))
        return out


class Sew(nn.Module):
    """A block of SEW-ResNet (Fang et al. 2021): spikes of the two ways are added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs)
        self.neuron1, self.neuron2, self.neuron3 = Lif(), Lif(), Lif()
        self.down = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.neuron2(self.conv2(self.neuron1(self.conv1(x))))
        return y + self.neuron3(self.down(x))


class Membrane(nn.Module):
    """A block of MS-ResNet (Hu et al. 2024): the shortcut carries voltages, neurons come first."""

    def __init__(self, inputs: int, outputs: int, stride: int, levels: int = 0) -> None:
        super().__init__()
        make = (lambda: Levels(levels=levels)) if levels else Lif
        self.conv1, self.conv2 = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs)
        self.neuron1, self.neuron2 = make(), make()
        self.down = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.neuron2(self.conv1(self.neuron1(x))))
        return y + self.down(x)


class Residual(nn.Module):
    """A stem, two blocks, a mean over the image, a linear head."""

    def __init__(self, block: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        self.stem, self.neuron = _conv(2, 8), Lif()
        self.block1, self.block2 = block(8, 8, 1), block(8, 16, 2)
        self.pool, self.head = Each(nn.AdaptiveAvgPool2d(1)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.neuron(self.stem(x))))
        out: Tensor = self.head(self.pool(x).flatten(2))
        return out


class Detector(nn.Module):
    """An event-camera detector: spikes to a map of features, then boxes, scores and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(2, 8, 3, 2), _conv(8, 16, 3, 2)
        self.neuron1, self.neuron2 = Lif(), Lif()
        self.head = nn.Conv2d(16, 2 * 7, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.found(self.neuron2(self.conv2(self.neuron1(self.conv1(x)))).mean(0))

    def found(self, rate: Tensor) -> dict[str, Tensor]:
        n, _, height, width = rate.shape
        found = self.head(rate).view(n, 2, 7, height, width).permute(0, 3, 4, 1, 2)
        y, x_ = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        corner = torch.stack([x_, y], -1)[None, :, :, None]
        boxes = torch.cat([found[..., :2].sigmoid() + corner, found[..., 2:4].exp()], -1) * 4
        scores = found[..., 4:5].sigmoid() * found[..., 5:].softmax(-1)
        best, classes = scores.flatten(1, 3).max(-1)
        kept, order = best.topk(5)
        boxes = boxes.flatten(1, 3).gather(1, order[..., None].expand(-1, -1, 4))
        return {"boxes": boxes, "scores": kept, "classes": classes.gather(1, order)}


class RunningDetector(Detector):
    """The same on the rate until now: a chunk of a stream gives what was found until its end."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        spikes = self.neuron2(self.conv2(self.neuron1(self.conv1(x))))
        count, steps = torch.zeros_like(spikes[0]), torch.zeros(len(spikes[0]), 1, 1, 1)
        for each in spikes:
            count, steps = count + each, steps + 1
        found = self.found(count / steps)
        return found | {"boxes": found["boxes"].flatten(1)}  # a sequence has three axes, or five


def _warm(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return what makes a network whose norms have seen inputs, so that its neurons spike."""

    def warm() -> nn.Module:
        network = make().train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None
                nn.init.uniform_(module.weight, 0.8, 1.4)
        with torch.no_grad():
            for _ in range(4):
                network(*_images(4, 4))
        return network

    return warm


def _images(steps: int, batch: int) -> tuple[Any, ...]:
    return (frames(steps, batch, 2, 12, 12, scale=2.0),)


def _former(attention: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    return _warm(lambda: Transformer(attention))


def _residual(block: Callable[[int, int, int], nn.Module]) -> Callable[[], nn.Module]:
    return _warm(lambda: Residual(block))


NETWORKS = [
    Network("Spikformer", _former(SelfAttention), _images),
    Network("Spikformer, linear attention", _former(Linear), _images),
    Network("Spike-driven Transformer", _former(Driven), _images),
    Network("QKFormer, tokens", _former(TokenAttention), _images),
    Network("QKFormer, channels", _former(lambda width: TokenAttention(width, 3)), _images),
    Network("SEW-ResNet", _residual(Sew), _images),
    Network("MS-ResNet", _residual(Membrane), _images),
    Network("MS-ResNet, I-LIF", _residual(lambda i, o, s: Membrane(i, o, s, 4)), _images),
    Network("detector", _warm(Detector), _images),
    Network("detector, running rate", _warm(RunningDetector), _images),
]
