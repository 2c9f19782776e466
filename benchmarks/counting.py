"""How many kernels a computation would launch on a GPU, and where it would wait for one: counted without a GPU."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_KERNEL = {"detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty",
             "new_empty_strided", "_unsafe_view", "_local_scalar_dense"}
LOOKS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "bincount"}
COPIES = {"_to_copy", "copy_", "_foreach_copy_"}


class Launches(TorchDispatchMode):
    """Inside of `with Launches() as launches:`, `launches.total` and, of each operation by its name, `launches.of`.

    Counted is what touches a tensor on `device`, which stands for a GPU. A foreach or fused operation counts as one, a
    convolution's backward as the gradients that it gives, a view as none. `launches.waits` counts what a GPU is waited
    for: a look at a value, a shape that depends on values, a copy from or to another device.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.of: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.of.total()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, found = function.overloadpacket.__name__, function(*args, **(kwargs or {}))
        devices = {value.device.type for value in tree_leaves((args, found)) if isinstance(value, Tensor)}
        if self.device in devices:
            if name == "convolution_backward":
                self.of[name] += sum(isinstance(gradient, Tensor) for gradient in found)
            elif name not in NO_KERNEL and not is_view(function):
                self.of[name] += 1
            if name in LOOKS or (name in COPIES and len(devices) > 1):
                self.waits[name] += 1
        return found


def is_view(function: Any) -> bool:
    """Whether an operation gives the memory of its input, and writes nothing."""
    return any(value.alias_info and not value.alias_info.is_write for value in function._schema.returns)


def launches(compute: Callable[[], Any]) -> int:
    """Of one call."""
    with Launches() as counted:
        compute()
    return counted.total
