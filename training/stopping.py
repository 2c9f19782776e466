"""SIGTERM and SIGINT at a moment that suits: the work goes on to a safe point, then the signal acts as ever."""

import signal
import sys
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
IMPATIENT = 1.0  # seconds after which a second signal does not wait; torchrun repeats a terminal's Ctrl-C at once


class DeferredSignals:
    """Inside, the first signal is only noted. Its receiver looks for it at safe points, and then lets it act.

    with DeferredSignals() as stop:
        ...
        if stop: write everything; stop.act()

    Whoever sent the signal sees the process end by it, as without us. Ignored signals stay ignored. In another thread
    than the main one, which receives none, it does nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._arrived: int | None = None
        self._since = 0.0

    def __bool__(self) -> bool:
        """Whether a signal has arrived."""
        return self._arrived is not None

    def __enter__(self) -> "DeferredSignals":
        before = {number: signal.getsignal(number) for number in SIGNALS} if self._enabled else {}
        self._before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        self._install()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        if self and error is None:
            self.act()
            self._restore()

    def act(self) -> None:
        """Let the signal that has arrived act; if its handler returns, the next one is waited for."""
        number, self._arrived = self._arrived, None
        self._restore()
        signal.raise_signal(number)
        self._install()

    def _install(self) -> None:
        for number in self._before:
            signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._arrived is None:
            self._arrived, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > IMPATIENT:
            self.act()


class Signals:
    """Remembers SIGINT, SIGTERM and SIGHUP instead of raising: neither a start nor a stop is ever cut in two."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # nohup
                    self.before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            print("\nstill stopping, please wait", file=sys.stderr, flush=True)
        self.received = self.received or number
