"""Processes that share the work of a step on CPU: each takes some of its rows, with one thread.

With several threads in each product, cores wait between the products, and Python lets one thread run at a time. The helpers are forks
of the process that trains: the frozen base is in memory once, and the trained parameters are shared, so that only rows, losses
and gradients pass between them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch
from torch import nn

from llamaflow.errors import TemporaryError

Groups = Sequence[Sequence[nn.Parameter]]


class Helper:
    """A forked process that does `work`; what it leaves as gradients of the groups of parameters that it names is added to this process's."""

    def __init__(self, work: Callable[[Any], Any], groups: Groups, others: Sequence[Helper]) -> None:
        self.groups = groups
        self.gradients = [[torch.zeros_like(parameter).share_memory_() for parameter in group] for group in groups]
        self.connection, its_end = multiprocessing.Pipe()
        if os.fork() == 0:
            for connection in (self.connection, *(other.connection for other in others)):
                connection.close()  # while one of them is open, the end of the process that trains is not seen
            self._serve(its_end, work)
        its_end.close()

    def begin(self, task: Any, groups: Sequence[int]) -> None:
        self.connection.send((task, groups))
        self.touched = groups

    def end(self) -> Any:
        """What came of the task. Raises what it raised, or TemporaryError if the process was killed."""
        try:
            result, self.has_gradients = self.connection.recv()
        except EOFError:
            raise TemporaryError("a process that helped to train was killed, most likely since memory ran out") from None
        if isinstance(result, Exception):
            raise result
        return result

    def add_gradients(self) -> None:
        if not self.has_gradients:
            return
        for number in self.touched:
            for parameter, gradient in zip(self.groups[number], self.gradients[number], strict=True):
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)

    def close(self) -> None:
        self.connection.close()
        os.wait()

    def _serve(self, connection: Connection, work: Callable[[Any], Any]) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process that trains decides when to end
        torch.set_num_threads(1)  # a fork has no threads but its own
        try:
            while True:
                task, groups = connection.recv()
                connection.send(self._answer(work, task, groups))
        except (EOFError, BrokenPipeError):
            os._exit(0)
        finally:
            os._exit(1)

    def _answer(self, work: Callable[[Any], Any], task: Any, groups: Sequence[int]) -> tuple[Any, bool]:
        try:
            result = work(task)
        except Exception as error:
            result = error
        has_gradients = False
        for number in groups:
            for parameter, gradient in zip(self.groups[number], self.gradients[number], strict=True):
                if parameter.grad is not None:
                    gradient.copy_(parameter.grad)
                    parameter.grad, has_gradients = None, True
        return result, has_gradients
