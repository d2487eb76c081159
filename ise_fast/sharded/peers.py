"""The processes that share the rows of one data set: who holds which, and how rows get from one to another.

Every float is computed in one place from whole rows; what travels is rows, integers and finished numbers. So the
answers have the bits of one process. A failure on one process is agreed upon before anybody waits for it, and raised on
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class PeerError(RuntimeError):
    """Another process failed, or is gone."""


class Peers:
    """The processes of a group; a group of None is this process alone.

    Args:
        group: of torch.distributed, gloo or NCCL; `torch.distributed.group.WORLD` is all processes.

    Raises:
        PeerError: from every method, if another process failed or is gone.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group: expected one that this process belongs to")
        nccl = group is not None and "nccl" in dist.get_backend(group)
        #: Where tensors must be to travel.
        self.device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        #: Bytes sent so far, for those who count.
        self.sent = 0
        self._agreed: Exception | None = None  # what the others know of already

    def together(self, function: Callable[[], T]) -> T:
        """`function` on every process; if it fails on one, all raise.

        Raises:
            PeerError: if it failed on another one; what it raised itself where it failed here.
        """
        if self.size == 1:
            return function()
        result: T | None = None
        failure: Exception | None = None
        try:
            result = function()
        except PeerError:
            raise  # the others know, or are gone
        except Exception as error:  # raised below, when the others know
            if error is self._agreed:
                raise
            failure = error
        self.agree(failure)
        return result  # type: ignore[return-value]  # T may be None

    def agree(self, failure: Exception | None) -> None:
        """Raise on all processes if one has failed."""
        if self.size == 1:
            if failure is not None:
                raise failure
            return
        with self._talk():
            failed = torch.tensor([int(failure is not None)], device=self.device)
            dist.all_reduce(failed, op=dist.ReduceOp.MAX, group=self.group)
            if not failed.item():
                return
            texts: list[Any] = [None] * self.size
            text = None if failure is None else (f"{failure}".splitlines() or [""])[0] or type(failure).__name__
            dist.all_gather_object(texts, text, group=self.group)
        if failure is not None:
            self._agreed = failure
            raise failure
        rank = next(rank for rank, text in enumerate(texts) if text is not None)
        raise PeerError(f"process {rank}: {texts[rank]}")

    def same(self, **settings: Any) -> None:
        """Every process was given the same.

        Raises:
            ValueError: on every process, naming the first that differs.
        """
        for name, values in zip(settings, zip(*self.objects(tuple(settings.values())), strict=True), strict=True):
            for rank, value in enumerate(values):
                if value != values[0]:
                    raise ValueError(
                        f"{name}: expected the same in all processes, got {values[0]!r} in process 0 and {value!r} in "
                        f"process {rank}"
                    )

    def objects(self, value: T) -> list[T]:
        """The value of every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._talk():
            dist.all_gather_object(values, value, group=self.group)
        return values

    def numbers(self, *values: int) -> list[tuple[int, ...]]:
        """Some integers of every process."""
        if self.size == 1:
            return [values]
        own = torch.tensor(values, dtype=torch.int64, device=self.device)
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with self._talk():
            dist.all_gather(parts, own, group=self.group)
        return [tuple(part.tolist()) for part in parts]

    def turn(self, rows: Sequence[Tensor], work: Callable[[int, list[Tensor]], None]) -> None:
        """work(process, its rows) for the rows of every process, own ones first, each after the other.

        The rows go round a ring, from each process to the one before it, while it works. Beside its own rows a process
        holds two blocks of others: the one at hand and the one that comes.

        Args:
            rows: tensors of this process, with any number of rows each; equal widths and dtypes everywhere.
            work: what to do; it must not keep the tensors.
        """
        if self.size == 1:
            work(0, list(rows))
            return
        counts = self.numbers(*(len(tensor) for tensor in rows))
        longest = [max(lengths) for lengths in zip(*counts, strict=True)]
        buffers = self.together(lambda: [[self._empty(n, t) for n, t in zip(longest, rows, strict=True)] for _ in "ab"])
        block = [self._ready(tensor) for tensor in rows]
        failure: Exception | None = None
        for step in range(self.size):
            source, following = (self.rank + step) % self.size, (self.rank + step + 1) % self.size
            coming = [buffer[:n] for buffer, n in zip(buffers[step % 2], counts[following], strict=True)]
            waiting = self._pass_on(block, coming) if step + 1 < self.size else []
            if failure is None:
                try:
                    work(source, [t.to(own.device) for t, own in zip(block, rows, strict=True)])
                except Exception as error:  # raised below: the others need this process to pass their rows on
                    failure = error
            with self._talk():
                for transfer in waiting:
                    transfer.wait()
            block = coming
        self.agree(failure)

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """All rows, in the order of the processes.

        Args:
            rows: [counts[rank], ...] on this process.
            counts: rows of each process.
        """
        if self.size == 1:
            return rows
        out = self.together(lambda: torch.empty((sum(counts), *rows.shape[1:]), dtype=rows.dtype, device=self.device))
        parts = out.split(list(counts))
        parts[self.rank].copy_(rows)
        with self._talk():
            for source, part in enumerate(parts):
                if part.numel():
                    dist.broadcast(part, group_src=source, group=self.group)
        self.sent += rows.nbytes
        return out.to(rows.device)

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """What every process has for this one.

        Args:
            parts: for each process the rows that it gets.
        """
        if self.size == 1:
            return list(parts)
        counts = [row[self.rank] for row in self.numbers(*(len(part) for part in parts))]
        coming = self.together(lambda: [self._empty(n, parts[0]) for n in counts])
        going = [self._ready(part) for part in parts]
        operations = []
        for other in range(self.size):
            if other == self.rank:
                coming[other] = going[other]
                continue
            if going[other].numel():
                operations.append(dist.P2POp(dist.isend, going[other], group=self.group, group_peer=other))
                self.sent += going[other].nbytes
            if coming[other].numel():
                operations.append(dist.P2POp(dist.irecv, coming[other], group=self.group, group_peer=other))
        with self._talk():
            for transfer in dist.batch_isend_irecv(operations) if operations else []:
                transfer.wait()
        return [tensor.to(part.device) for tensor, part in zip(coming, parts, strict=True)]

    def least_(self, values: Tensor) -> None:
        """Each element becomes the smallest of all processes, in place."""
        self._reduce_(values, dist.ReduceOp.MIN)

    def sum_(self, values: Tensor) -> None:
        """Each element, an integer, becomes the sum over all processes, in place."""
        self._reduce_(values, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return any(value for (value,) in self.numbers(int(flag)))

    def pass_along(
        self, count: int, begin: Callable[[int], Tensor], work: Callable[[int, Tensor], Tensor]
    ) -> list[Tensor]:
        """Work on `count` tensors on process 0, then on process 1 with what came out, and so on.

        While a process works on one, the process before it works on the next.

        Args:
            count: how many.
            begin: number -> what process 0 begins with; tells the others the shape.
            work: (number, tensor) -> the tensor to pass on, of the same shape and dtype.

        Returns:
            What came out on the last process; nothing on the others.
        """
        results: list[Tensor] = []
        failure: Exception | None = None
        for number in range(count):
            values = begin(number)
            if self.rank > 0:
                there = self._empty(len(values), values)
                with self._talk():
                    dist.recv(there, group_src=self.rank - 1, group=self.group)
                values = there.to(values.device)
            if failure is None:
                try:
                    values = work(number, values)
                except Exception as error:  # raised below: the others wait for what this process passes on
                    failure = error
            if self.rank + 1 == self.size:
                results.append(values)
                continue
            with self._talk():
                dist.send(self._ready(values), group_dst=self.rank + 1, group=self.group)
            self.sent += values.nbytes
        self.agree(failure)
        return results

    def from_last(self, values: Tensor) -> Tensor:
        """The last process' tensor on all of them, of the shape that all know."""
        if self.size == 1:
            return values
        there = self._ready(values)
        with self._talk():
            dist.broadcast(there, group_src=self.size - 1, group=self.group)
        return there.to(values.device)

    def _reduce_(self, values: Tensor, operation: Any) -> None:
        if self.size == 1 or values.numel() == 0:
            return
        there = self._ready(values)
        with self._talk():
            dist.all_reduce(there, op=operation, group=self.group)
        self.sent += values.nbytes
        if there is not values:
            values.copy_(there)

    def _pass_on(self, block: Sequence[Tensor], coming: Sequence[Tensor]) -> list[Any]:
        before, after = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        operations = []
        for going, there in zip(block, coming, strict=True):
            if going.numel():
                operations.append(dist.P2POp(dist.isend, going, group=self.group, group_peer=before))
                self.sent += going.nbytes
            if there.numel():
                operations.append(dist.P2POp(dist.irecv, there, group=self.group, group_peer=after))
        with self._talk():
            return list(dist.batch_isend_irecv(operations)) if operations else []

    def _ready(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device).contiguous()

    def _empty(self, rows: int, like: Tensor) -> Tensor:
        return torch.empty((rows, *like.shape[1:]), dtype=like.dtype, device=self.device)

    @contextmanager
    def _talk(self) -> Iterator[None]:
        """A network that fails means that somebody is gone."""
        try:
            yield
        except PeerError:
            raise
        except RuntimeError as error:
            reason = (f"{error}".splitlines() or [""])[0]
            raise PeerError(f"process {self.rank} of {self.size}: another process is gone ({reason})") from None


def starts_of(counts: Sequence[int]) -> list[int]:
    """Where each process' rows begin, and the number of all rows last."""
    return [0, *accumulate(counts)]


def parts_by_owner(starts: Sequence[int], rows: Tensor) -> list[Tensor]:
    """Ascending rows, cut where another process' begin."""
    edges = torch.searchsorted(rows, torch.tensor(starts, dtype=rows.dtype, device=rows.device)).tolist()
    return [rows[low:high] for low, high in pairwise(edges)]
