"""No process ever holds more than its own features, two blocks, 120 bytes a row of all, and its part of the graph."""

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

ROWS, WIDTH, SIZE = 1200, 2000, 4
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

HELD = """
import sys, warnings, weakref
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from ise_fast.sharded import HeldRows, JaccardSettings, Peers, cluster
from ise_fast.sharded.kmeans import shared_kmeans
from ise_fast.sharded.kmeans_start import shared_kmeans_start
from tests.sharded.shapes import clustered

folder, rank, size, rows, width = sys.argv[1], *map(int, sys.argv[2:])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
torch.set_num_threads(1)
x = clustered(rows, width, 0)[rows * rank // size : rows * (rank + 1) // size].clone()

class Held(TorchDispatchMode):
    '''Bytes of the tensors that are alive beside x, and the most there ever were.'''
    def __init__(self):
        super().__init__()
        self.alive, self.bytes, self.most = {x.untyped_storage().data_ptr()}, 0, 0
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.see(tensor.untyped_storage())
        return result
    def see(self, storage):
        place, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or place in self.alive:
            return
        self.alive.add(place)
        self.bytes += size
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self.gone, place, size)
    def gone(self, place, size):
        self.alive.discard(place)
        self.bytes -= size

held = Held()
with held:
    labels, _ = cluster(HeldRows("x", x, Peers(dist.group.WORLD)), JaccardSettings())
print("cluster", held.most)
held = Held()
with held:
    features = HeldRows("x", x, Peers(dist.group.WORLD))
    shared_kmeans(features, shared_kmeans_start(features, 4, torch.Generator().manual_seed(0)), 3)
print("kmeans", held.most)
dist.barrier()
dist.destroy_process_group()
"""


def test_processes_hold_their_own_rows_and_two_blocks(tmp_path: Path) -> None:
    """Counted tensor by tensor: nothing depends on what else the machine does."""
    (tmp_path / "held.py").write_text(HELD)
    command = [sys.executable, str(tmp_path / "held.py"), str(tmp_path)]
    arguments = [[*command, *map(str, (rank, SIZE, ROWS, WIDTH))] for rank in range(SIZE)]
    runs = [subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for words in arguments]
    block = 4 * WIDTH * -(-ROWS // SIZE)
    for run in runs:
        out, _ = run.communicate()
        assert run.returncode == 0
        most, of_kmeans = (line.split()[1] for line in out.splitlines())
        part = 60 * 40 * 8 * -(-ROWS // SIZE)  # of V', of the graph, and of what they are sorted by
        assert 2 * block < int(most) < 2 * block + 120 * ROWS + part
        assert int(of_kmeans) < 2 * block


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
