"""Features that lie in parts: a part on each process, or in a file that is read block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ise_fast._checks import FLOATING, check_features, check_tensor, warn_unless_unit_rows
from ise_fast.sharded.peers import Peers, starts_of

#: work(number of the block's first row, block)
Work = Callable[[int, Tensor], None]


class Features:
    """Rows that are never all in memory. Own rows are those that this process answers for."""

    peers: Peers
    starts: list[int]  # where the rows of each process begin, and the number of all rows
    width: int
    #: Where what is found of own rows is kept, and worked on: neighbours, V', graph.
    home: torch.device

    @property
    def first(self) -> int:
        """The number of the first own row."""
        return self.starts[self.peers.rank]

    @property
    def own(self) -> int:
        """How many own rows there are."""
        return self.counts[self.peers.rank]

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return self.starts[-1]

    @property
    def counts(self) -> list[int]:
        return [end - start for start, end in pairwise(self.starts)]

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """(place among the own rows, rows): all own rows, piece by piece. Each piece takes a `turn` of its own."""
        raise NotImplementedError

    def turn(self, work: Work) -> None:
        """All rows, block by block; every process must call it as often as the others do."""
        raise NotImplementedError


class HeldRows(Features):
    """Rows that processes hold in memory, each its own; ranks without rows are welcome.

    Args:
        name: of the argument, for messages.
        x: [n, d] floating rows of this process, float32 from here on.
        peers: the processes.
        keep_double: leave float64 as it is.
        unit: warn of rows that are not of unit length.

    Raises:
        TypeError, ValueError, PeerError: on every process, if a process has something else, NaN or infinity.
    """

    def __init__(self, name: str, x: Any, peers: Peers, *, keep_double: bool = False, unit: bool = True) -> None:
        self.peers = peers
        self.x = peers.together(lambda: _finite_rows(name, x, keep_double))
        peers.same(**{f"dtype of {name}": self.x.dtype})
        if unit:
            warn_unless_unit_rows(name, self.x)
        shapes = peers.numbers(*self.x.shape)
        self.width = max(width for _, width in shapes)
        for rank, (count, width) in enumerate(shapes):
            if width != self.width and count:
                raise ValueError(f"{name}: expected {self.width} columns as others have, got {width} in process {rank}")
        if self.x.shape[1] != self.width:  # no rows, so nothing to take a width from
            self.x = self.x.new_empty((0, self.width))
        self.starts = starts_of([count for count, _ in shapes])
        if self.rows == 0:
            raise ValueError(f"{name}: expected at least one row, got none in all")
        self.home = self.x.device

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        yield 0, self.x

    def turn(self, work: Work) -> None:
        def each(source: int, tensors: list[Tensor]) -> None:
            if len(tensors[0]):
                work(self.starts[source], tensors[0])

        self.peers.turn([self.x], each)


class StoredRows(Features):
    """Rows in a memory-mapped file or in host memory, of which two blocks at a time are read, by one process.

    Args:
        x: [N, d] array of any floating dtype, such as `numpy.load(path, mmap_mode="r")`, or a tensor on the CPU.
        device: where rows are compared; what is found, which may take as much room, is kept on the CPU.
        block: rows of a block; 0: as many as 128 MiB hold.

    Raises:
        TypeError, ValueError: naming the argument. NaN and infinity are found when a block is read.
    """

    def __init__(self, x: Any, device: torch.device | str = "cpu", block: int = 0) -> None:
        shape, dtype = tuple(getattr(x, "shape", ())), getattr(x, "dtype", None)
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"x: expected rows of at least one column, got shape {shape}")
        if shape[0] == 0:
            raise ValueError(f"x: expected at least one row, got shape {shape}")
        if isinstance(x, Tensor):
            check_tensor("x", x, 2, FLOATING)
        elif not isinstance(x, np.ndarray) or not np.issubdtype(dtype, np.floating):
            raise TypeError(f"x: expected a NumPy array or torch tensor of floats, got {type(x).__name__} of {dtype}")
        if block < 0:
            raise ValueError(f"block: expected at least 1 row, or 0 for a choice, got {block}")
        self.peers = Peers()
        self.x = x
        self.device, self.home = torch.device(device), torch.device("cpu")
        self.starts, self.width = [0, shape[0]], shape[1]
        self.block = block or max(1, (128 << 20) // (4 * shape[1]))

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, self.rows, self.block):
            yield start, self._read(start)

    def turn(self, work: Work) -> None:
        for start in range(0, self.rows, self.block):
            work(start, self._read(start))  # gone when the next is read

    def _read(self, start: int) -> Tensor:
        part = self.x[start : start + self.block]
        # A copy: pages of the file may go again, and a read-only array is nothing that torch takes.
        rows = part.float() if isinstance(part, Tensor) else torch.from_numpy(np.array(part, dtype=np.float32))
        if not all(map(math.isfinite, torch.stack(rows.aminmax()).tolist())):
            row = start + int((~torch.isfinite(rows).all(dim=1)).nonzero()[0, 0])
            raise ValueError(f"x: expected finite values, got NaN or infinity in row {row}")
        return rows.to(self.device)


def _finite_rows(name: str, x: Any, keep_double: bool) -> Tensor:
    rows = check_tensor(name, x, 2, FLOATING).detach()
    if len(rows):
        rows = check_features(name, rows)
    return (rows if keep_double and rows.dtype == torch.float64 else rows.float()).contiguous()
