"""Pictures: what a folder of them is, decoding, the packed cache, splits and batches, augmentation."""
