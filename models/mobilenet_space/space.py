"""The search space of stage 2: MobileNet's 13 blocks, each with a choice of operation, five also with one of a skip.

A sample is a dict of label -> choice, such as {"block01_op": "dw3", ..., "block03_op": "ir2_dw3", "block03_skip":
"stem", ...}; BASELINE is plain MobileNet. `build(sample, num_classes, side)` makes the network of a sample, with
nothing in it that the sample does not use; `count_parameters` and `count_macs` know its cost without building it.
A side beyond 32, of blocks.SIZES, changes nothing but the stem, by 0.02 million parameters at most.

Size: 8 operations in the 8 blocks that keep stride and channels, 6 in the other 5; skips 3 * 4**4. Together
6**5 * 8**8 * 768 = 100 192 997 081 088 networks of 0.28 to 13.6 million parameters at 10 classes, where
MobileNet has 3.2; about one in 17 random ones has no more than that.

    dw3 dw5 dw7  depthwise 3x3, 5x5 or 7x7, then 1x1 across channels: MobileNet's own block, arXiv 1704.04861
    se_dw3       dw3 with squeeze-and-excitation between the two, arXiv 1709.01507
    ir2_dw3      inverted residual, expanded 2 times: 1x1, depthwise 3x3, linear 1x1, arXiv 1801.04381
    thin_dw3     the same with a quarter of the channels inside: half of dw3's parameters, or less
    res_dw3      dw3 with a linear end, added to its input: dw3's parameters  (where input and output have one shape)
    identity     nothing: pays for a costlier block elsewhere                 (where input and output have one shape)

Widths are those of MobileNet, so the last blocks hold most parameters (the last one a third), the first ones few: to
expand block01 to block05 is cheap, to thin block12 and block13 pays for it. A skip takes one of the up to three
feature maps before the block's input, averages it down to the input's size, concatenates both, and a 1x1 convolution
brings the channels back. Blocks 3, 5, 7, 9 and 11 have one: at block 13 this convolution alone would take half of
MobileNet's parameters, and skips at blocks 2 to 12 would leave one random network in 300 within them.

The same space for NNI, MobileNetSpace, is declared in nni_space.py over the skeleton here.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from models.blocks import halvings, pool_linear, stem
from models.mobilenet_space.choices import (
    BLOCKS,
    OPERATIONS,
    SIDE,
    STEM,
    Cost,
    NoSkip,
    blocks_of,
    build_skip,
    conv_bn_cost,
    operations,
    skip_cost,
    skips,
    total,
)

# ---- the network


class SampledMobileNet(nn.Module):
    """The skeleton that all networks share, and NNI's space. With BASELINE its state_dict fits plain MobileNet's."""

    def __init__(self, stem: nn.Module, skips: Iterable[nn.Module], layers: Iterable[nn.Module],
                 head: nn.Module) -> None:
        super().__init__()
        self.stem, self.head = stem, head
        self.skips, self.layers = nn.ModuleList(skips), nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = [x]
        for skip, layer in zip(self.skips, self.layers, strict=True):
            x = layer(skip(x, maps))
            maps.append(x)
        return self.head(x)


def ends(num_classes: int, side: int = SIDE) -> dict[str, nn.Module]:
    """What surrounds the blocks."""
    return {"stem": stem(STEM, side), "head": pool_linear(BLOCKS[-1].c_out, num_classes)}


def build(sample: Mapping[str, str], num_classes: int, side: int = SIDE) -> SampledMobileNet:
    """The network of `sample` for images (N, 3, side, side); ValueError if it is none of the space."""
    check_sample(sample)
    blocks = blocks_of(side)
    return SampledMobileNet(
        skips=[build_skip(block, skips(block)[sample[block.skip_label]]) if skips(block) else NoSkip()
               for block in blocks],
        layers=[OPERATIONS[sample[block.op_label]].build(block) for block in blocks], **ends(num_classes, side))


# ---- the space


@cache
def _costs(side: int = SIDE) -> dict[str, dict[str, Cost]]:
    """label -> choice -> its cost; the labels in the order of the blocks, which is that of the alphabet."""
    found = {}
    for block in blocks_of(side):
        found[block.op_label] = {name: OPERATIONS[name].cost(block) for name in operations(block)}
        if skips(block):
            found[block.skip_label] = {name: skip_cost(block, source) for name, source in skips(block).items()}
    return found


def choices() -> dict[str, list[str]]:
    """label -> its choices."""
    return {label: list(costs) for label, costs in _costs().items()}


def search_space() -> dict[str, dict[str, Any]]:
    """The space as NNI's search space; search_space_classic_nas.json is written from it."""
    return {label: {"_type": "choice", "_value": values} for label, values in choices().items()}


BASELINE = {label: values[0] for label, values in choices().items()}  # dw3 everywhere, no skip


def check_sample(sample: Any) -> None:
    """ValueError with one line if `sample` is not exactly one choice for each label."""
    allowed = _costs()
    if not isinstance(sample, Mapping):
        raise ValueError(f"architecture: {str(sample)[:60]!r} must be an object of labels and choices, such as "
                         '{"block01_op": "dw3", ...}')
    for label, value in sample.items():
        if label not in allowed:
            close = difflib.get_close_matches(str(label), allowed, n=1)
            raise ValueError(f"{label}: no such label in the space; " +
                             (f"did you mean {close[0]}?" if close else f"allowed: {', '.join(allowed)}"))
        if not isinstance(value, str) or value not in allowed[label]:
            raise ValueError(f"{label} = {value!r}: must be one of {', '.join(allowed[label])}")
    if missing := [label for label in allowed if label not in sample]:
        raise ValueError(f"{missing[0]} is missing; it must be one of {', '.join(allowed[missing[0]])}")


# ---- its cost


def _ends_cost(num_classes: int, side: int) -> Cost:
    linear = BLOCKS[-1].c_out * num_classes
    sizes = [side >> number + 1 for number in range(halvings(side))] or [side]  # of the maps in the stem
    maps = [conv_bn_cost(STEM if number else 3, STEM, 3, size) for number, size in enumerate(sizes)]
    return total([*maps, Cost(linear + num_classes, linear)])


def cost(sample: Mapping[str, str], num_classes: int = 10, side: int = SIDE) -> Cost:
    check_sample(sample)
    return total([_ends_cost(num_classes, side), *(costs[sample[label]] for label, costs in _costs(side).items())])


def count_parameters(sample: Mapping[str, str], num_classes: int = 10, side: int = SIDE) -> int:
    return cost(sample, num_classes, side).parameters


def count_macs(sample: Mapping[str, str], num_classes: int = 10, side: int = SIDE) -> int:
    """Multiply-adds for one image of side x side."""
    return cost(sample, num_classes, side).macs


def smallest(num_classes: int = 10, side: int = SIDE) -> Cost:
    """The fewest parameters, and the fewest multiply-adds, that any network of the space has."""
    least = [Cost(*map(min, zip(*costs.values(), strict=True))) for costs in _costs(side).values()]
    return total([_ends_cost(num_classes, side), *least])


def no_larger_than_mobilenet(sample: Mapping[str, str]) -> bool:
    """The tuner's limit in config_classic_nas.yml: at most as many parameters as plain MobileNet has. What holds for
    images of one size holds for all: the stem is everybody's, and blocks have the same parameters at every size."""
    return count_parameters(sample) <= count_parameters(BASELINE)
