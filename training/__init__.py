"""Training: the loop, the bilevel steps, checkpoints, devices, processes, and what a trial is."""
