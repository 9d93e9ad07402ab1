"""A lifeline: a process that ends when its parent does, even when that was killed."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies; call it in the child.

    ``parent`` is the parent's process id as the parent knew it: one that died in between is
    noticed too. Linux only; elsewhere it does nothing. It outlives an exec.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
