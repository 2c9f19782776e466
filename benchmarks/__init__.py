"""What is fast and what is small, measured side by side. Run from the root of the repository:

    python -m benchmarks.input_pipeline    batched augmentation against per-image transforms in a DataLoader
    python -m benchmarks.training_step     our training step against the textbook loop, input included
    python -m benchmarks.precision         the training step in fp32 and bf16, NCHW and channels_last
    python -m benchmarks.startup           from the start of a trial's process to its first batch and step
    python -m benchmarks.memory            peak memory of the loader and of packing
    python -m benchmarks.darts_step        a step of the DARTS search and of the retrain, plain against ours
    python -m benchmarks.nas_scores        candidates that the free scores rank in a second
    python -m benchmarks.nas_table         a table of real trainings, for:
    python -m benchmarks.synthetic_table   a made-up one, with as good a score as one likes, for the same
    python -m benchmarks.tuner_replay      how good a tuner's pick is after so many trainings
    python -m benchmarks.predict           predict.py against the bare forward pass
    python -m benchmarks.batch_norm        networks after few steps, with running statistics and with settled ones
    python -m benchmarks.experiment_poll   how far an NNI experiment of so many trials is
    python -m benchmarks.gpu               all that a GPU has to show, in nine minutes (make gpu)

Each prints Markdown tables with the machine, the versions and the commit, and writes all single measurements as
JSON with --out FILE. Rivals take turns in one process, so that a busy machine slows all of them.
"""
