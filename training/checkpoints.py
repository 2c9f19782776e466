"""Checkpoints: what a run needs to go on after any stop as if there had been none. Written atomically, read without
running code.

"As if" is bitwise on a CPU, with one number of threads. A GPU adds in another order each time, as a run without a stop
does too.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from artifacts.file_kinds import kind_of
from files import atomic_write

FORMAT = 1


def save_checkpoint(path: Path, parts: dict[str, Any], identity: dict[str, Any],
                    history: list[dict[str, float]], within_epoch: dict[str, Any] | None = None) -> None:
    """Write the states of `parts` (whatever has a state_dict), atomically; OSError if the disk is full.

    ValueError if the checkpoint that is there is further on: another run writes to the same folder.
    """
    ours, theirs = (len(history), (within_epoch or {}).get("steps", 0)), _progress(path)
    if theirs > ours:
        raise ValueError(f"{path}: holds {theirs[0]} epochs and {theirs[1]} steps, we are at {ours[0]} and {ours[1]}: "
                         "another run writes there, which is further on; --name NAME gives another folder")
    state = {name: part.state_dict() for name, part in parts.items()}
    if within_epoch:
        state["within_epoch"] = within_epoch
    try:
        with atomic_write(path, "wb") as file:
            torch.save({"format": FORMAT, "identity": identity, "history": history, **state}, file)
    except RuntimeError as error:  # how torch tells of a failed write, when it closes its archive
        raise OSError(f"{path}: cannot be written ({error.__context__ or error})") from None


def _progress(path: Path) -> tuple[int, int]:
    """Epochs, and steps of the next one, of a checkpoint, whose tensors are not read; none of what is no checkpoint."""
    try:
        saved = torch.load(path, weights_only=True, mmap=True)
        return len(saved["history"]), saved.get("within_epoch", {}).get("steps", 0)
    except Exception:  # whatever a broken file makes torch raise: nothing to go on from, nothing to keep
        return 0, 0


def load_checkpoint(path: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote, with its tensors on `device`, to resume from.

    Raises ValueError with one line if there is no checkpoint, if it is broken, or if it is of another run.
    """
    if not path.exists():
        raise ValueError(f"resume: there is no checkpoint {path}")
    if kind := kind_of(path):
        raise ValueError(f"{path}: not a whole checkpoint (it is {kind}); delete it to start anew")
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        version, theirs = saved["format"], saved["identity"]
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, pickle.UnpicklingError) as error:
        unsafe = isinstance(error, pickle.UnpicklingError)  # torch would advise to load it in an unsafe way
        reason = ("it cannot be read as tensors and plain types" if unsafe else
                  (str(error) or "it is empty").splitlines()[0])
        raise ValueError(f"{path}: not a whole checkpoint ({reason}); delete it to start anew") from None
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}, this version reads {FORMAT}; delete it to start anew")
    for key in sorted(identity.keys() | theirs.keys()):
        if identity.get(key) != theirs.get(key):
            raise ValueError(f"{path}: its run had {key} = {theirs.get(key)!r}, this one has {identity.get(key)!r}; "
                             f"a run goes on with the settings it began with")
    return saved
