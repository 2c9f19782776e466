"""What this machine's GPU does with the project: right or wrong, and how fast. `make gpu`, or

    python -m benchmarks.gpu                                       9 minutes on the GPU
    python -m benchmarks.gpu --only search retrain --minutes 4
    python -m benchmarks.gpu --device cpu --sizes tiny             every line of it once, without a GPU

Each section runs in a process of its own (a CUDA error spoils all that comes after it in its process), in the order of
what its figures are worth, for its share of the time; what one leaves over goes to those after it. A section is a list
of cases; after a crash the next case goes on in a fresh process. A figure is a line of FOLDER/results.jsonl as soon as
it exists, and at the end a cell of FOLDER/table.md. docs/gpu.md says how to read them.
"""

from typing import NamedTuple


class Section(NamedTuple):
    share: int  # of the time, in proportion to the others'
    modules: tuple[str, ...]  # of this package, in their order; each has CASES
    about: str


SECTIONS = {
    "ceilings": Section(8, ("ceilings",), "what the machine can do at best"),
    "correct": Section(30, ("correct_kernels", "correct_search", "correct_runs", "correct"),
                       "against float64 on the CPU"),
    "depthwise": Section(10, ("depthwise", "pointwise", "depthwise_compiled"), "the convolutions of DARTS"),
    "search": Section(18, ("search",), "a step of the published search"),
    "zoo": Section(14, ("zoo",), "training of the eight networks, input included"),
    "retrain": Section(12, ("retrain",), "training of DARTS_V2, input included"),
    "training": Section(14, ("one_training",), "one real training with its test accuracy"),
    "scripts": Section(8, ("scripts",), "commands that are killed and go on"),
    "launches": Section(2, ("launches",), "launches of a search step, counted without a GPU"),
}
