"""The skeleton that the supernet, NNI's space and the discrete network of DARTS share: cells, and a stack of them.

What differs between the three is only what a node makes of the states before it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from models.blocks import pool_linear
from models.darts.operations import DropPath, FactorizedReduce, ReluConvBn


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
        states = [self.preprocess0.of_rectified(s0), self.preprocess1.of_rectified(s1)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat(states[2:], 1)


# of (channels_pp, channels_p, channels, reduction_p, reduction)
MakeCell = Callable[[int, int, int, bool, bool], CellSkeleton]


class StackedCells(nn.Module):
    """Stem, cells, classifier: (N, in_channels, H, W) -> (N, n_classes) logits; in training with an auxiliary head a
    pair of logits, the second those of the head.

    The cells number n_layers // 3 and 2 * n_layers // 3 reduce: half the size, double the channels.
    """

    def __init__(self, make_cell: MakeCell, in_channels: int, channels: int, n_classes: int, n_layers: int,
                 stem_multiplier: int = 3, auxiliary: bool = False) -> None:
        super().__init__()
        c_pp = c_p = stem_multiplier * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, c_p, 3, padding=1, bias=False), nn.BatchNorm2d(c_p))
        self.cells = nn.ModuleList()
        reductions, reduction_p = {n_layers // 3, 2 * n_layers // 3}, False
        for layer in range(n_layers):
            reduction = layer in reductions
            channels *= 2 if reduction else 1
            cell = make_cell(c_pp, c_p, channels, reduction_p, reduction)
            self.cells.append(cell)
            c_pp, c_p, reduction_p = c_p, cell.channels_out, reduction
        self.head = pool_linear(c_p, n_classes)
        self.auxiliary_after = 2 * n_layers // 3
        self.auxiliary = auxiliary_head(self.cells[self.auxiliary_after].channels_out, n_classes) if auxiliary else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        s0 = s1 = self.stem(x)
        auxiliary_logits = None
        for layer, cell in enumerate(self.cells):
            s1 = s1.relu_()  # once for both cells that read it
            s0, s1 = s1, cell(s0, s1)
            if layer == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary_logits = self.auxiliary(s1)
        logits = self.head(s1)
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def drop_path_probability(self, p: float, rising: bool = False) -> None:
        """From now on each path but the identities is dropped with probability p, in training only; `rising`: p will be
        higher later (see DropPath).
        """
        for module in self.modules():
            if isinstance(module, DropPath):
                module.set_probability(p, rising)


def auxiliary_head(channels: int, n_classes: int) -> nn.Sequential:
    """A second classifier two thirds up: (N, channels, 8, 8) -> (N, n_classes) logits."""
    return nn.Sequential(
        nn.ReLU(), nn.AvgPool2d(5, 3),  # (N, channels, 2, 2)
        nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True),
        nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU(inplace=True),  # (N, 768, 1, 1)
        nn.Flatten(), nn.Linear(768, n_classes))
