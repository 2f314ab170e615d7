"""Exit statuses, and which errors of others become ours."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from full_disk import no_room_beyond
from tiny import ROOT

from llamaflow.errors import DataError, LlamaflowError, StorageError, TemporaryError, UsageError, as_llamaflow_error, exits_cleanly


@pytest.mark.parametrize(("error", "status"), [(UsageError, 64), (StorageError, 64), (DataError, 65), (TemporaryError, 75)])
def test_exit_status_and_no_traceback(error: type[LlamaflowError], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    @exits_cleanly
    def main() -> None:
        raise error("what was wrong")

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert capsys.readouterr().err == "error: what was wrong\n"


def test_a_bug_keeps_its_traceback() -> None:
    script = "from llamaflow.errors import exits_cleanly\n@exits_cleanly\ndef main(): return {}['x']\nmain()"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "bin", capture_output=True, text=True)
    assert ended.returncode == 1
    assert "KeyError: 'x'" in ended.stderr
    assert as_llamaflow_error(KeyError("x")) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/store"), StorageError),
        (OSError(errno.EROFS, "Read-only file system", "/store"), StorageError),
        (PermissionError(errno.EACCES, "Permission denied", "/store"), StorageError),
        (MemoryError(), TemporaryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), TemporaryError),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), None),
        (RuntimeError("shapes differ"), None),
    ],
)
def test_translation(error: Exception, kind: type[LlamaflowError] | None) -> None:
    found = as_llamaflow_error(error)
    assert type(found) is (kind or type(None))


def test_a_full_disk_as_the_libraries_tell_it(tmp_path: Path) -> None:
    """safetensors and numpy do not raise plain OSErrors when the disk takes no more."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from safetensors.torch import save_file

    table = pa.table({"x": np.random.default_rng(0).random(100_000)})
    writes: list[Callable[[Path], object]] = [
        lambda path: np.save(path, np.zeros(100_000)),
        lambda path: pq.write_table(table, path),
        lambda path: save_file({"x": torch.zeros(100_000)}, path),
        lambda path: path.write_bytes(bytes(400_000)),
    ]
    for number, write in enumerate(writes):
        with no_room_beyond(100_000), pytest.raises(Exception) as failed:
            write(tmp_path / f"{number}.npy")
        assert isinstance(as_llamaflow_error(failed.value), StorageError), repr(failed.value)
