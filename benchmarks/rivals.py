"""The two input pipelines: ours, and the one of the textbook, over the same pictures with the same augmentation."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pictures import SIDE
from pictures.dataset import Batches, Pictures, training_batches

PADDING = 4  # pixels, of the random crop


def our_batches(pictures: Pictures, device: torch.device, images: int, batch_size: int, cutout: int) -> Batches:
    """Our loader, with an epoch of `images`: the training split, cut or repeated to that length."""
    train = training_batches(pictures, device, train_size=0, val_size=0, batch_size=batch_size, crop_padding=PADDING,
                             flip="on", cutout=cutout, seed=0).train
    index = np.resize(train.index.cpu().numpy(), images)
    return Batches(train.pixels, train.labels, index, train.normalization, batch_size, train.augmentation)


def textbook_loader(pictures: Pictures, batches: Batches, workers: int, cutout: int) -> DataLoader:
    """The images of `batches` as everybody loads CIFAR-10: per-image PIL transforms and worker processes.

    Nothing is held back: the images lie decoded in memory, workers persist, memory is pinned for a GPU.
    """
    device = batches.pixels.device
    steps = [
        transforms.RandomCrop(SIDE, padding=PADDING),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(batches.normalization.mean.tolist(), batches.normalization.std.tolist()),
    ]
    if cutout:  # a square of that side in every image, of the mean colour; torchvision keeps it within the image
        area = (cutout / SIDE) ** 2
        steps.append(transforms.RandomErasing(p=1, scale=(area, area), ratio=(1, 1), value=0))
    dataset = ImagesInMemory(pictures, batches.index.cpu().numpy(), transforms.Compose(steps))
    return DataLoader(dataset, batches.batch_size, shuffle=True, drop_last=True, num_workers=workers,
                      persistent_workers=workers > 0, pin_memory=device.type == "cuda")


class ImagesInMemory(Dataset):
    """Decoded images as a uint8 array, each made a PIL image and transformed when asked for."""

    def __init__(self, pictures: Pictures, index: np.ndarray, transform: transforms.Compose) -> None:
        self.images = np.ascontiguousarray(pictures.train_images[index][..., :3])  # (N, 32, 32, 3), a plain array
        self.labels, self.transform = pictures.train_labels[index].tolist(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]
