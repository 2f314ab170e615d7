"""Processes that share the work of a step on CPU, each with one thread.

With several threads in each product of matrices, cores wait between small products, and Python lets one thread run at a time. The
helpers are forks of the process that trains: the frozen base is in memory once, trained parameters and gradients are shared, and only
tasks and losses pass between them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import mmap
import multiprocessing
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from llamaflow.errors import TemporaryError
from llamaflow.steps import say


class Crew:
    """This process and its helpers, which call `work` with a task each; it leaves gradients with the parameters, which are shared (`share_with_forks`)."""

    def __init__(self, work: Callable[[Any], Any], parameters: Sequence[nn.Parameter], processes: int) -> None:
        self.work, self.threads, self.helpers = work, torch.get_num_threads(), list[Helper]()
        if processes == 1:
            return
        torch.set_num_threads(1)
        gc.collect()
        gc.freeze()  # the collector's marks would copy the memory that forks share
        try:
            for _ in range(processes - 1):
                self.helpers.append(Helper(work, parameters, self.helpers))
        except OSError as error:  # a limit on processes, or on memory that might be copied
            say(f"no helping process could be started ({error.strerror}): the training goes on with {self.processes}")
        if not self.helpers:
            self.close()

    @property
    def processes(self) -> int:
        return 1 + len(self.helpers)

    def do(self, tasks: Sequence[Any]) -> list[Any]:
        """What comes of at most so many tasks as there are processes. Raises the first error, once all have ended."""
        busy = list(zip(self.helpers, tasks[1:], strict=False))
        for helper, task in busy:
            helper.begin(task)
        results = [_attempt(self.work, tasks[0]), *(helper.end() for helper, _ in busy)]
        for result in results:
            if isinstance(result, Exception):
                raise result
        for helper, _ in busy:
            helper.add_gradients()
        return results

    def memory(self) -> int:
        """Bytes that the helpers have had at most beside what they share with this process."""
        return sum(helper.memory() for helper in self.helpers)

    def close(self) -> None:
        """End the helpers; this process has all its threads again."""
        for helper in self.helpers:
            helper.close()
        self.helpers.clear()
        gc.unfreeze()
        torch.set_num_threads(self.threads)


class Helper:
    """A fork of this process that does tasks until it is killed, or that process is gone."""

    def __init__(self, work: Callable[[Any], Any], parameters: Sequence[nn.Parameter], others: Iterable[Helper]) -> None:
        self.parameters, self.gradients = parameters, zeros_shared_with_forks(parameters)
        self.touched: set[int] = set()  # numbers of the parameters that have a gradient
        self.connection, its_end = multiprocessing.Pipe()
        with warnings.catch_warnings():
            # what the other threads of this process hold (pools of products, readers of counters), a helper does not touch
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            self.process = os.fork()
        if not self.process:
            for connection in (self.connection, *(other.connection for other in others)):
                connection.close()  # while anybody holds it open, a helper does not see that the process that trains is gone
            self._serve(its_end, work)
        its_end.close()

    def begin(self, task: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # end() says that the process is gone
            self.connection.send(task)

    def end(self) -> Any:
        """What came of the task: a result or an error."""
        try:
            result, self.touched = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return TemporaryError("a process that helped to train was killed, most likely because memory ran out")
        return result

    def add_gradients(self) -> None:
        for place in self.touched:
            parameter, gradient = self.parameters[place], self.gradients[place]
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def memory(self) -> int:
        try:
            private = _kilobytes(f"/proc/{self.process}/smaps_rollup", "Private_Clean", "Private_Dirty")
            now, most = (_kilobytes(f"/proc/{self.process}/status", name) for name in ("VmRSS", "VmHWM"))
        except OSError:  # not every sandbox has them
            return 0
        return 1024 * (private + most - now)

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)  # it has nothing to lose
        os.waitpid(self.process, 0)
        self.connection.close()

    def _serve(self, connection: Connection, work: Callable[[Any], Any]) -> NoReturn:
        for request in (signal.SIGTERM, signal.SIGINT):
            signal.signal(request, signal.SIG_IGN)  # the process that trains decides when to end
        for place, parameter in enumerate(self.parameters):
            parameter.register_post_accumulate_grad_hook(functools.partial(self._take_gradient, place))
        try:
            while True:
                self.touched.clear()
                connection.send((_attempt(work, connection.recv()), self.touched))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            os._exit(0)
        finally:
            os._exit(1)

    def _take_gradient(self, place: int, parameter: nn.Parameter) -> None:
        """Put it where the process that trains sees it, and nowhere else."""
        kept = self.gradients[place]
        (kept.add_ if place in self.touched else kept.copy_)(parameter.grad)
        self.touched.add(place)
        parameter.grad = None


def _attempt(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except Exception as error:  # noqa: BLE001 - whatever it is, the process that trains raises it
        return error


def share_with_forks(parameters: Sequence[nn.Parameter]) -> None:
    """Move them where changes by this process are seen by its forks, and the other way round."""
    for parameter, shared in zip(parameters, zeros_shared_with_forks(parameters), strict=True):
        parameter.data = shared.copy_(parameter.detach())


def zeros_shared_with_forks(like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of these shapes and types; pages that nobody writes take no memory. torch's own shared memory is a disk that containers keep small."""
    starts = [0]
    for tensor in like:
        starts.append(starts[-1] + -(-tensor.nbytes // 64) * 64)
    memory = memoryview(mmap.mmap(-1, starts[-1]))
    return [torch.frombuffer(memory[start : start + tensor.nbytes], dtype=tensor.dtype).view(tensor.shape) for start, tensor in zip(starts, like, strict=False)]


def _kilobytes(file: str, *names: str) -> int:
    text = Path(file).read_text()
    return sum(int(amount) for amount in re.findall(rf"^(?:{'|'.join(names)}):\s+(\d+) kB", text, re.MULTILINE))
