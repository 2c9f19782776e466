"""What NNI's logs say, from logs made up."""

from pathlib import Path

import pytest

from guard import logs


def test_last_exception_of_the_tuner(tmp_path: Path) -> None:
    log = tmp_path / "log" / "dispatcher.log"
    log.parent.mkdir()
    first = "Traceback (most recent call last):\n  File x\nKeyError: 1\n"
    log.write_text(f"[now] INFO\n{first}[now] ERROR\nTraceback (most recent call last):\n  File y\nnni.Oops: a\n b\n")
    assert logs.tuner_exception(tmp_path) == "nni.Oops: a"
    assert logs.tuner_exception(tmp_path, len(log.read_text())) is None
    assert logs.tuner_exception(tmp_path / "none") is None


@pytest.mark.parametrize(("log", "words"), [
    ("[t] ERROR (TaskScheduler) Failed to collect GPU info\n[t] INFO (S) Initiate shutdown: training service initialize"
     " failed\n", "Failed to collect GPU info"),
    ("[t] INFO (ShutdownManager) Initiate shutdown: SIGTERM\n", "stopped from outside (SIGTERM"),
    ("[t] INFO (NNIManager) Trial job A status changed\n", "killed from outside"), (None, "killed from outside")])
def test_why_gone(tmp_path: Path, log: str | None, words: str) -> None:
    (tmp_path / "log").mkdir()
    if log is not None:
        (tmp_path / "log" / "nnimanager.log").write_text("[t] INFO (main) Start NNI manager\n" + log)
    assert words in logs.why_gone(tmp_path)
