"""What a CUDA graph does, on a CPU: the operations of a step are noted once, with the very tensors they took, and
repeated. A Python number that went into one stays what it was; so does everything else that is not a tensor."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNDECLARED = {"running_mean", "running_var"}  # batch norm overwrites these, and its schema does not say so


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def memory(tensor):
    return tensor.untyped_storage().data_ptr()


class Noted(TorchDispatchMode):
    """All operations in `calls`; in `before` what they overwrite of the tensors that were there."""

    def __init__(self):
        super().__init__()
        self.calls, self.made, self.before = [], set(), {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "waits for the device"
        kwargs = kwargs or {}
        for argument, value in [*zip(function._schema.arguments, args, strict=False),
                                *((argument, kwargs.get(argument.name)) for argument in function._schema.arguments)]:
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written or argument.name in UNDECLARED:
                for tensor in tensors(value):
                    if memory(tensor) not in self.made | self.before.keys():
                        self.before[memory(tensor)] = (tensor.untyped_storage(), tensor.untyped_storage().clone())
        result = function(*args, **kwargs)
        given = {memory(tensor) for tensor in tensors((args, kwargs))}
        self.made |= {memory(tensor) for tensor in tensors(result)} - given
        self.calls.append((function, args, kwargs, result))
        return result


class GraphOnCpu:
    """A Recorder of training/graphs.py. To record is not to execute: what the step wrote is put back."""

    def record(self, step, arguments):
        random = torch.get_rng_state()
        with Noted() as noted:
            result = step(*arguments)
        for now, before in noted.before.values():
            now.copy_(before)
        torch.set_rng_state(random)
        self.calls = noted.calls
        return result

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, result in self.calls:
                for old, new in zip(tensors(result), tensors(function(*args, **kwargs)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)
