"""A file that is larger than memory: two blocks of it are held."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ise_fast.sharded import JaccardSettings, StoredRows, cluster
from tests.sharded.shapes import clustered

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

STORED = """
import resource, sys
import numpy as np
import torch
from ise_fast.sharded import JaccardSettings, StoredRows, cluster

torch.set_num_threads(1)
x = np.load(sys.argv[1], mmap_mode="r")
settings = JaccardSettings(k1=10, k2=2)
cluster(StoredRows(np.array(x[:64]), block=32), settings)  # libraries and threads are there
data = next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]
resource.setrlimit(resource.RLIMIT_DATA, ((int(data) << 10) + x.nbytes * 3 // 4,) * 2)
try:
    np.array(x)
    print("held")
except MemoryError:
    print("too large")
print(int(cluster(StoredRows(x, block=50), settings).labels.max()) + 1)
"""


def test_a_file_larger_than_the_memory_there_is(tmp_path: Path) -> None:
    """The system refuses three quarters of what the rows would take; pages of the file do not count."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, 50_000), dtype=np.float32)
    x = np.repeat(centres, 10, axis=0)
    x[:, :100] += rng.standard_normal((500, 100), dtype=np.float32)
    x /= np.float32(50_000**0.5)  # of length 1, nearly
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "stored.py").write_text(STORED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "stored.py"), str(tmp_path / "x.npy")],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["too large", "50"], done.stderr


def test_two_blocks_of_a_file_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """One to answer for, and one at hand."""
    read, seen, most = StoredRows._read, [], 0

    def counted(self: StoredRows, start: int) -> Tensor:
        nonlocal most
        rows = read(self, start)
        seen.append(weakref.ref(rows.untyped_storage()))
        most = max(most, sum(reference() is not None for reference in seen))
        return rows

    monkeypatch.setattr(StoredRows, "_read", counted)
    cluster(StoredRows(clustered(400, 30, 1).numpy(), block=50), JaccardSettings(k1=10, k2=3))
    assert len(seen) == 2 * (8 + 8 * 8)
    assert most == 2
