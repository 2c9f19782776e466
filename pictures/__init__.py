"""Pictures: what a folder of them is, decoding, the packed cache, splits and batches, augmentation."""

SIDE = 32  # pixels, of the pictures that all networks take
