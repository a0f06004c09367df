"""`breakpoint()` in a view stops there: `make dev` sets `PYTHONBREAKPOINT` to `chassis.dev.debugger.stop`."""

import gc
import pdb  # noqa: T100 - this is what it is for
import sys
from typing import Any

import gevent
from gevent.fileobject import FileObjectThread


class _Debugger(pdb.Pdb):
    """A debugger on the terminal itself. `sys.stdout` turns everything into events of the log."""

    def __init__(self) -> None:
        # A thread waits for what is typed, so that the worker gives its sign of life meanwhile.
        typed: Any = FileObjectThread(0, "r", closefd=False)
        super().__init__(stdin=typed, stdout=sys.__stdout__, nosigint=True)


def stop(*_args: Any, **_options: Any) -> None:
    """Stop in the caller. No time limit of a request ends while a person thinks."""
    for timeout in gc.get_objects():
        if isinstance(timeout, gevent.Timeout) and timeout.pending:
            timeout.cancel()
    _Debugger().set_trace(sys._getframe(1))  # noqa: SLF001 - as `breakpoint` itself does
