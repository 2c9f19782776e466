"""The skeleton that the supernet, NNI's space and the discrete network of DARTS share: cells, and a stack of them.

What differs between the three is only what a node makes of the states before it.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.blocks import BatchNorm2d, body_side, halvings, pool_linear
from models.darts.operations import DropPath, FactorizedReduce, ReluConvBn
from models.kernels import usable
from models.kernels.branches import side_by_side


class CellSkeleton(nn.Module):
    """The outputs of the two cells before, rectified -> the maps of all nodes, side by side on the channels.

    s0 is (N, channels_pp, H, W), twice as large if the cell before was a reduction; s1 is (N, channels_p, H, W).
    Each node takes the list of states [s0, s1, first node, ...], all of `channels` channels, and gives the next one:
    as large as s1, in a reduction cell half as large.
    """

    def __init__(self, channels_pp: int, channels_p: int, channels: int, reduction_p: bool,
                 nodes: Iterable[nn.Module], affine: bool) -> None:
        super().__init__()
        self.preprocess0 = (FactorizedReduce if reduction_p else ReluConvBn)(channels_pp, channels, affine)
        self.preprocess1 = ReluConvBn(channels_p, channels, affine)
        self.nodes = nn.ModuleList(nodes)
        self.channels_out = len(self.nodes) * channels

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        return abreast(self.node_maps(self.preprocessed(s0, s1)))

    def preprocessed(self, s0: Tensor, s1: Tensor) -> list[Tensor]:
        return side_by_side([partial(self.preprocess0.of_rectified, s0), partial(self.preprocess1.of_rectified, s1)],
                            s0, s1)

    def node_maps(self, states: list[Tensor]) -> list[Tensor]:
        """Of all nodes, from the two preprocessed inputs."""
        states = list(states)
        for node in self.nodes:
            states.append(node(states))
        return states[2:]


def abreast(maps: Sequence[Tensor]) -> Tensor:
    """Maps (N, C, H, W), on the channels."""
    if usable(maps[0]) and len({(map.shape, map.dtype) for map in maps}) == 1:
        from models.kernels.copies import joined  # Triton, which not every machine has

        return joined(maps)
    return torch.cat(list(maps), 1)


# of (channels_pp, channels_p, channels, reduction_p, reduction)
MakeCell = Callable[[int, int, int, bool, bool], CellSkeleton]


class StackedCells(nn.Module):
    """Stem, cells, classifier: (N, in_channels, S, S) -> (N, n_classes) logits; in training with an auxiliary head a
    pair of logits, the second those of the head. S is `side`, of blocks.SIZES: the stem is that of `stems`.

    The cells number n_layers // 3 and 2 * n_layers // 3 reduce: half the size, double the channels.
    """

    def __init__(self, make_cell: MakeCell, in_channels: int, channels: int, n_classes: int, n_layers: int,
                 stem_multiplier: int = 3, auxiliary: bool = False, side: int = 32) -> None:
        super().__init__()
        self.stem, self.stem1 = stems(in_channels, channels, stem_multiplier, side)
        c_pp = c_p = channels if halvings(side) else stem_multiplier * channels
        self.cells = nn.ModuleList()
        reductions, reduction_p = {n_layers // 3, 2 * n_layers // 3}, self.stem1 is not None
        for layer in range(n_layers):
            reduction = layer in reductions
            channels *= 2 if reduction else 1
            cell = make_cell(c_pp, c_p, channels, reduction_p, reduction)
            self.cells.append(cell)
            c_pp, c_p, reduction_p = c_p, cell.channels_out, reduction
        self.head = pool_linear(c_p, n_classes)
        self.auxiliary_after = 2 * n_layers // 3
        read = self.cells[self.auxiliary_after].channels_out
        self.auxiliary = auxiliary_head(read, n_classes, body_side(side) // 4) if auxiliary else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        s0, s1 = self.first_states(x)
        auxiliary_logits = None
        for layer, cell in enumerate(self.cells):
            s1 = s1.relu_()  # once for both cells that read it
            s0, s1 = s1, cell(s0, s1)
            if layer == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary_logits = self.auxiliary(s1)
        logits = self.head(s1)
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def first_states(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s0 and s1 of the first cell; s0 is rectified, unless it is s1, which the cell's own turn will do."""
        s0 = self.stem(x)
        return (s0, s0) if self.stem1 is None else (s0.relu_(), self.stem1(s0))

    def drop_path_probability(self, p: float, rising: bool = False) -> None:
        """From now on each path but the identities is dropped with probability p, in training only; `rising`: p will be
        higher later (see DropPath).
        """
        for module in self.modules():
            if isinstance(module, DropPath):
                module.set_probability(p, rising)


def stems(
    in_channels: int, channels: int, stem_multiplier: int, side: int
) -> tuple[nn.Sequential, nn.Sequential | None]:
    """What makes s0 of the pictures, and s1 of the rectified s0; None where the first cell reads one map twice.

    For 32x32 the paper's form for CIFAR, of stem_multiplier * channels. Larger pictures are halved by convolutions of
    stride 2 and have `channels` then; three halvings are the paper's form for ImageNet: s0 is twice as large as s1.
    """
    count = halvings(side)
    if count == 0:
        return nn.Sequential(*_conv_bn(in_channels, stem_multiplier * channels, 1)), None
    if count == 1:
        return nn.Sequential(*_conv_bn(in_channels, channels, 2)), None
    half = channels - channels // 2
    stem = nn.Sequential(*_conv_bn(in_channels, half, 2), nn.ReLU(inplace=True), *_conv_bn(half, channels, 2))
    return stem, nn.Sequential(*_conv_bn(channels, channels, 2)) if count == 3 else None


def _conv_bn(c_in: int, c_out: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), BatchNorm2d(c_out)


def auxiliary_head(channels: int, n_classes: int, side: int = 8) -> nn.Sequential:
    """A second classifier two thirds up: (N, channels, side, side), side 6, 7 or 8 -> (N, n_classes) logits."""
    return nn.Sequential(
        nn.ReLU(), nn.AvgPool2d(5, side - 5),  # (N, channels, 2, 2)
        nn.Conv2d(channels, 128, 1, bias=False), BatchNorm2d(128), nn.ReLU(inplace=True),
        nn.Conv2d(128, 768, 2, bias=False), BatchNorm2d(768), nn.ReLU(inplace=True),  # (N, 768, 1, 1)
        nn.Flatten(), nn.Linear(768, n_classes))
