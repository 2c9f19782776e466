"""Checkpoints: what a run needs to go on after any stop as if there had been none. Written atomically, read without
running code, and only if they are what was written (artifacts/tensor_file.py).

"As if" is bitwise on a CPU, with one number of threads. A GPU adds in another order each time, as a run without a stop
does too. Beside a checkpoint lies the one before it: the run goes on from that if the newer one is damaged.
"""

from pathlib import Path
from typing import Any

import torch

from artifacts import tensor_file
from artifacts.file_kinds import kind_of
from artifacts.tensor_file import NotWhole

FORMAT = 1


def save_checkpoint(path: Path, parts: dict[str, Any], identity: dict[str, Any],
                    history: list[dict[str, float]], within_epoch: dict[str, Any] | None = None) -> None:
    """Write the states of `parts` (whatever has a state_dict), atomically; OSError if the disk is full.

    What was the checkpoint until now becomes the one before it, if it is whole. ValueError if that is further on: then
    another run writes to the same folder.
    """
    whole = _is_whole(path)
    ours, theirs = (len(history), (within_epoch or {}).get("steps", 0)), _progress(path) if whole else (0, 0)
    if theirs > ours:
        raise ValueError(f"{path}: holds {theirs[0]} epochs and {theirs[1]} steps, we are at {ours[0]} and {ours[1]}: "
                         "another run writes there, which is further on; --name NAME gives another folder")
    state = {name: part.state_dict() for name, part in parts.items()}
    if within_epoch:
        state["within_epoch"] = within_epoch
    content = {"format": FORMAT, "identity": identity, "history": history, **state}
    tensor_file.write(path, content, before(path) if whole else None)


def before(path: Path) -> Path:
    """Where the one before the checkpoint `path` lies."""
    return path.with_name(f"{path.name}.before")


def _progress(path: Path) -> tuple[int, int]:
    """Epochs, and steps of the next one, of a whole checkpoint, whose tensors are not read; none of something else."""
    try:
        saved = tensor_file.looked_at(path)
        return len(saved["history"]), saved.get("within_epoch", {}).get("steps", 0)
    except Exception:  # whatever another file makes torch raise: nothing to go on from, nothing to keep
        return 0, 0


def load_checkpoint(path: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote, with its tensors on `device`, to resume from; of a damaged one the one before it.

    Raises ValueError with one line if there is no checkpoint, if both are broken, or if it is of another run.
    """
    if not path.exists():
        raise ValueError(f"resume: there is no checkpoint {path}")
    saved = _read_either(path, device)
    version, theirs = saved["format"], saved["identity"]
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}, this version reads {FORMAT}; delete it to start anew")
    for key in sorted(identity.keys() | theirs.keys()):
        if identity.get(key) != theirs.get(key):
            raise ValueError(f"{path}: its run had {key} = {theirs.get(key)!r}, this one has {identity.get(key)!r}; "
                             f"a run goes on with the settings it began with")
    return saved


def _read_either(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        return _read(path, device)
    except NotWhole as error:
        broken = f"{path}: not a whole checkpoint ({error})"
    older = before(path)
    if not older.exists():
        raise ValueError(f"{broken}; delete it to start anew")
    try:
        saved = _read(older, device)
    except NotWhole as error:
        raise ValueError(f"{broken}, nor is the one before it, {older.name} ({error}); delete both to start "
                         "anew") from None
    print(f"{broken}; going on from the one before it, of {len(saved.get('history', ()))} whole epochs", flush=True)
    return saved


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint; NotWhole if it is none."""
    try:
        kind = kind_of(path)
    except OSError as error:  # as a bad disk gives
        raise NotWhole(error.strerror) from None
    if kind:
        raise NotWhole(f"it is {kind}")
    saved = tensor_file.read(path, device)
    if not isinstance(saved, dict) or not {"format", "identity"} <= saved.keys():
        raise NotWhole("it holds something else")
    return saved


def _is_whole(path: Path) -> bool:
    try:
        tensor_file.check(path)
    except (NotWhole, OSError):
        return False
    return True
