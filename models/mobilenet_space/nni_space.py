"""MobileNetSpace: the space of space.py as an NNI 3.0 ModelSpace, of LayerChoice and InputChoice.

Imports nni.nas, hence pytorch-lightning; everything that works without them is in space.py.
"""

from collections.abc import Mapping
from typing import Any

from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableModule
from torch import Tensor, nn

from models.mobilenet_space.choices import OPERATIONS, SIDE, Block, NoSkip, blocks_of, build_skip, operations, skips
from models.mobilenet_space.space import SampledMobileNet, check_sample, ends


class SkipChoice(MutableModule):
    """InputChoice over the block's input as it is and merged with each map; frozen, only the chosen merge is left."""

    def __init__(self, candidates: list[nn.Module], label: str) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        self.choice = InputChoice(len(candidates), n_chosen=1, label=label)

    def forward(self, x: Tensor, maps: list[Tensor]) -> Tensor:
        return self.choice([candidate(x, maps) for candidate in self.candidates])

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        return self.candidates[self.choice.freeze(sample).chosen[0]]

    @classmethod
    def create_fixed_module(cls, sample: Mapping[str, Any], candidates: list[nn.Module], label: str) -> nn.Module:
        """What NNI makes in place of this module inside of its model_context(sample)."""
        return candidates[InputChoice.create_fixed_module(sample, len(candidates), label=label).chosen[0]]


class MobileNetSpace(ModelSpace, SampledMobileNet):
    """All operations and skips of all blocks; `freeze(nni_sample(sample))` is the network of build(sample)."""

    def __init__(self, num_classes: int, side: int = SIDE) -> None:
        blocks = blocks_of(side)
        SampledMobileNet.__init__(self, skips=map(_skip_choice, blocks), layers=map(_layer_choice, blocks),
                                  **ends(num_classes, side))

    def freeze(self, sample: Mapping[str, Any]) -> SampledMobileNet:
        """The network of `sample`, which shares its weights with the space."""
        self.validate(sample)
        skips, layers = ([module.freeze(sample) if isinstance(module, MutableModule) else module for module in modules]
                         for modules in (self.skips, self.layers))
        return SampledMobileNet(self.stem, skips, layers, self.head)


def _layer_choice(block: Block) -> nn.Module:
    return LayerChoice({name: OPERATIONS[name].build(block) for name in operations(block)}, label=block.op_label)


def _skip_choice(block: Block) -> nn.Module:
    if not skips(block):
        return NoSkip()
    return SkipChoice([build_skip(block, source) for source in skips(block).values()], label=block.skip_label)


def nni_sample(sample: Mapping[str, str]) -> dict[str, str | list[int]]:
    """`sample` as NNI wants it: an InputChoice takes a list of indices."""
    check_sample(sample)
    indices = {block.skip_label: list(skips(block)) for block in blocks_of(SIDE)}
    return {label: [indices[label].index(value)] if label in indices else value for label, value in sample.items()}
