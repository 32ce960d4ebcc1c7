# SPDX-License-Identifier: MIT
"""The kernel's end of an inline gate: an environment in the kernel's own process calls the same dispatcher,
without a socket.
"""

import os
from collections.abc import Callable
from typing import Any

from exonet.gate.protocol import Op, Request
from exonet.kernel.environment import Environment
from exonet.kernel.syscalls import Dispatcher

__all__ = ["InlineKernel"]


class InlineKernel:
    """`gate.client.InlineGate(InlineKernel(dispatcher, env))` is an inline environment's gate. bound: called after it
    has bound something, or changed what may be sent; the control socket of a process wakes the machine's loop by
    itself.
    """

    def __init__(self, dispatcher: Dispatcher, env: Environment, bound: Callable[[], None] | None = None) -> None:
        self._dispatcher = dispatcher
        self._env = env
        self._machine = dispatcher.environments.machine
        self._bound = bound
        self.now = self._machine.now

    def call(self, request: Request) -> tuple[dict[str, Any], list[int]]:
        """Descriptors are duplicates: the caller's to close."""
        answer = self._dispatcher.handle(self._env, request)
        if request.op in (Op.BIND, Op.DELEGATE, Op.REVOKE) and self._bound is not None:
            self._bound()
        return answer.fields, [os.dup(fd) for fd in answer.fds]

    def events(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Takes what the kernel has to tell; descriptors pass to the caller."""
        taken = [(event.fields, event.fds) for event in self._env.inbox]
        self._env.inbox.clear()
        return taken

    def wake_at(self, ns: int) -> None:
        self._machine.wake_at(self._env.number, ns)
