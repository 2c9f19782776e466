"""A training in small for the tests of training/: settings, networks, a loader that can stop and go on."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Settings:
    optimizer: str = "Adam"
    lr: float = 0.01
    weight_decay: float = 1e-4
    momentum: float = 0.9
    epochs: int = 4
    warmup: float = 0.1
    label_smoothing: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    precision: str = "fp32"
    compile: bool = False
    graph: bool = True
    seed: int = 0


def network(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class TwoHeads(nn.Module):
    """A pair of logits in training, as a DARTS network with its auxiliary head, and a record of drop path's rates."""

    def __init__(self):
        super().__init__()
        self.trunk, self.first, self.second = network(dropout=0)[:-1], nn.Linear(8, 4), nn.Linear(8, 4)
        self.rates, self.rising = [], set()

    def forward(self, x):
        x = self.trunk(x)
        return (self.first(x), self.second(x)) if self.training else self.first(x)

    def drop_path_probability(self, p, rising=False):
        self.rates.append(p)
        self.rising.add(rising)


class FromAnyStep:
    """A loader that can begin within an epoch, and that can raise `error` before one of its batches is handed out."""

    def __init__(self, loader, error=None, at=None):
        self.loader, self.images, self.error, self.at, self.handed = loader, loader.images, error, at, 0

    def __len__(self):
        return len(self.loader)

    def epoch(self, epoch, start=0):
        for batch in list(self.loader.epoch(epoch))[start:]:
            if self.handed == self.at:
                raise self.error
            self.handed += 1
            yield batch


class Doubled:
    """A loader's batches in float64, made within the step."""

    def __init__(self, loader):
        self.loader, self.images = loader, loader.images

    def __len__(self):
        return len(self.loader)

    def epoch(self, epoch):
        return (self.ready(*batch) for batch in self.loader.epoch(epoch))

    def drawn(self, epoch):
        return self.loader.epoch(epoch)

    def ready(self, x, y):
        return x.double(), y
