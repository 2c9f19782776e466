"""A training step as one CUDA graph: its launches are recorded once, and from then on repeated as one.

A step of a small network is some thousand kernels of a few microseconds each; launched one by one the GPU waits for the
host. A graph repeats what was recorded: whatever changes from step to step has to live in tensors, and a Python number
that the step has read stays what it was. See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

WARM = 3  # calls before the recording: optimizers make their state, cuDNN chooses its algorithms


class Recorder(Protocol):
    """Records the launches of a step, and repeats them."""

    def record(self, step: Callable[..., Any], arguments: tuple) -> Any:
        """Record without executing; the results are tensors that each replay fills anew."""

    def replay(self) -> None: ...


class CudaGraph:
    """`generators`: those, besides the default one, that the step draws from."""

    def __init__(self, *generators: torch.Generator) -> None:
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)

    def record(self, step: Callable[..., Any], arguments: tuple) -> Any:
        with torch.cuda.graph(self.graph):
            return step(*arguments)

    def replay(self) -> None:
        self.graph.replay()


class Captured:
    """A step that is called as before: the first calls run it as it is, one records it, all later ones replay it.

    Its arguments are tensors, None, or (named) tuples of these, of one shape at all calls; they are copied into the
    tensors that were recorded. Its results are overwritten by the next call. Without a recorder every call runs the
    step as it is. What the step reads besides, such as the state of an optimizer, must be loaded before the recording.
    """

    def __init__(self, step: Callable[..., Any], recorder: Callable[[], Recorder] | None) -> None:
        self.step, self.recorder = step, recorder
        self.calls, self.recorded, self.arguments, self.results = 0, None, (), None

    def __call__(self, *arguments: Any) -> Any:
        if self.recorder is None:
            return self.step(*arguments)
        self.calls += 1
        if self.calls <= WARM:
            return _aside(self.step, arguments)
        if self.recorded is None:
            self.arguments, self.recorded = _copies(arguments), self.recorder()
            self.results = self.recorded.record(self.step, self.arguments)
        torch._foreach_copy_(list(_tensors(self.arguments)), list(_tensors(arguments)))
        self.recorded.replay()
        return self.results


def _aside(step: Callable[..., Any], arguments: tuple) -> Any:
    """On a stream of its own, where what is made for later steps belongs if they are to be recorded."""
    if not any(tensor.is_cuda for tensor in _tensors(arguments)):
        return step(*arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*capturable=True")  # optimizers warn of steps that are not recorded
        results = step(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    return results


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
    elif value is not None:
        yield value


def _copies(value: Any) -> Any:
    """The same with tensors of its own."""
    if isinstance(value, tuple):
        parts = [_copies(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return None if value is None else value.clone()


# ---- optimizers whose steps can be recorded


def ready_to_step(optimizer: torch.optim.Optimizer, device: torch.device, recorded: bool) -> None:
    """Make the steps of `optimizer` ones that can be recorded, or such as ever; to be called after a state was loaded,
    which may be that of either.

    Recorded, the learning rate and what an optimizer counts live on the device: a float would be frozen without a word.
    """
    for group in optimizer.param_groups:
        dtype = torch.float32 if device.type == "cuda" else group["params"][0].dtype
        group["lr"] = torch.as_tensor(group["lr"], dtype=dtype, device=device) if recorded else float(group["lr"])
        if type(optimizer) in (torch.optim.SGD, torch.optim.Adam):
            group.update(fused=recorded or None, foreach=False if recorded else None)
        if "capturable" in group:
            group["capturable"] = recorded and device.type == "cuda"
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"]).to(device if recorded else "cpu")


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of all groups of parameters; of one with a "factor", that times the rate."""
    for group in optimizer.param_groups:
        own = rate * group.get("factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
