"""The exceptions a step may end with, and the exit status of each.

LlamaflowError
|-- UsageError       64  a parameter, a path or a model reference is wrong: mend it and start again
|   `-- StorageError     a directory cannot be written, or the disk is full
|-- DataError        65  the data cannot be used as it is
`-- TemporaryError   75  out of memory or interrupted: the same task, with more memory, may succeed

Anything else is a bug: status 1 and a traceback. conf/base.config retries 75 and signals, and finishes on the others.
The numbers are those of sysexits.h (EX_USAGE, EX_DATAERR, EX_TEMPFAIL).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

STATUS_FILE = "LLAMAFLOW_STATUS_FILE"  # of a process that others have started, who keep its exit status to themselves


class LlamaflowError(Exception):
    """A failure whose message a user can act on: what was wrong, where, what was expected, what to do next."""

    exit_code = 1


class UsageError(LlamaflowError):
    """A parameter, a path or a model reference is wrong."""

    exit_code = 64


class StorageError(UsageError):
    """A directory cannot be written, or the disk is full."""


class DataError(LlamaflowError):
    """The data cannot be used as it is."""

    exit_code = 65


class TemporaryError(LlamaflowError):
    """The same task may succeed when it is run again, with more memory."""

    exit_code = 75


def as_llamaflow_error(error: BaseException) -> LlamaflowError | None:
    """Translate an error of the operating system or of torch that is not a bug; None for all others."""
    if isinstance(error, LlamaflowError):
        return error
    if _is_full_disk(error):
        return StorageError(
            f"no room left on the disk that holds {getattr(error, 'filename', None) or 'the work directory'} ({error}). Free some space, then run again with -resume."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
        return StorageError(f"cannot write or read {error.filename}: {error.strerror}. Choose another directory, or change its permissions.")
    if is_out_of_memory(error):
        return TemporaryError(f"out of memory ({error}). The task is tried again with more; a smaller per_device_train_batch_size or max_length needs less.")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """torch raises plain RuntimeErrors for failed allocations on CPU, a subclass named OutOfMemoryError on GPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _is_full_disk(error: BaseException) -> bool:
    """safetensors and pyarrow have exceptions of their own and only tell it in words; numpy tells how much of an array it wrote."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(words in str(error) for words in ("No space left on device", "disk is full", "Disk quota exceeded", "File too large")) or bool(
        isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error))
    )


def exits_cleanly(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a step's main(): errors with a message end with their exit status and no traceback."""

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except Exception as error:
            known = as_llamaflow_error(error)
            if known is None:
                raise
            _exit(known)

    return wrapped


def _exit(error: LlamaflowError) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {error}", file=sys.stderr)
    if STATUS_FILE in os.environ:
        Path(os.environ[STATUS_FILE]).write_text(str(error.exit_code))
    raise SystemExit(error.exit_code)
