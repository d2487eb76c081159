"""V' of own rows: sets from the neighbours of all rows, inner products in a turn of the ring, other rows by request."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast.ops._csr import Csr, offsets_of, take_rows
from ise_fast.ops.shards import average_rows, expanded_sets, pattern_products, reciprocal_bits, softmax_rows
from ise_fast.reference.k_reciprocal import half_width
from ise_fast.sharded.features import Features
from ise_fast.sharded.peers import Peers, parts_by_owner


def encode_own(features: Features, own: Tensor, k2: int) -> Csr:
    """Rows of `ops.k_reciprocal_encoding` that this process answers for, where the features have their home.

    Args:
        features: the rows.
        own: [n, k1] int32, `own_neighbours` of all rows.
        k2: neighbours of the query expansion.

    Returns:
        (indptr [n + 1], indices [nnz] int32: numbers of all rows, values [nnz] float32).
    """
    peers = features.peers
    pattern = own_sets(features, own)
    product = _inner_products(features, pattern)
    values = peers.together(lambda: softmax_rows(product, pattern[0]))
    v = (*pattern, values)
    # Not an expansion by one row: a row need not be its own nearest neighbour.
    return v if k2 == 1 else _expand(peers, features.starts, v, own[:, :k2].contiguous())


def own_sets(features: Features, own: Tensor) -> tuple[Tensor, Tensor]:
    """R*(i) of own rows: (indptr, indices). The neighbours of all rows, 4 k1 bytes each, are held while it runs."""
    peers, begin = features.peers, features.first
    end, half = begin + features.own, half_width(own.shape[1])
    nn = peers.gather(own, features.counts)
    bits = peers.together(lambda: reciprocal_bits(nn, begin, end, half))
    all_bits = peers.gather(bits, features.counts)
    return peers.together(lambda: expanded_sets(nn, all_bits, half, begin, end))


def _inner_products(features: Features, pattern: tuple[Tensor, Tensor]) -> Tensor:
    """[nnz] float64: x_i . x_j of every entry, filled in as the rows j go by."""
    indptr, indices = pattern
    product = torch.empty(len(indices), dtype=torch.float64, device=indices.device)
    for place, rows in features.pieces():
        low, high = int(indptr[place]), int(indptr[place + len(rows)])
        lengths, columns = indptr[place : place + len(rows) + 1].diff(), indices[low:high]
        row = torch.arange(len(rows), dtype=torch.int32, device=indices.device).repeat_interleave(lengths)

        def fill(
            first: int, block: Tensor, rows: Tensor = rows, row: Tensor = row, columns: Tensor = columns, low: int = low
        ) -> None:
            entry = ((columns >= first) & (columns < first + len(block))).nonzero()[:, 0]
            counts = torch.bincount(row[entry], minlength=len(rows))
            local = (columns[entry] - first).to(block.device)
            found = pattern_products(rows, block, offsets_of(counts).to(block.device), local, "dot")
            product[low + entry] = found.to(product.device)

        features.turn(fill)
    return product


def _expand(peers: Peers, starts: list[int], v: Csr, near: Tensor) -> Csr:
    """The mean of V over each row's k2 nearest."""
    wanted = near.unique()
    rows = request_rows(peers, starts, v, wanted)
    return peers.together(lambda: average_rows(rows, torch.searchsorted(wanted, near).to(torch.int32)))


def request_rows(peers: Peers, starts: list[int], v: Csr, wanted: Tensor) -> Csr:
    """Rows of an encoding from those who hold them.

    Args:
        peers: the processes.
        starts: where the rows of each begin.
        v: own rows.
        wanted: [m] int32 numbers of rows, ascending, each once.

    Returns:
        The rows, in that order.
    """
    asked = peers.exchange(parts_by_owner(starts, wanted))
    answers = peers.together(lambda: [take_rows(v, (ids - starts[peers.rank]).long()) for ids in asked])
    lengths = torch.cat(peers.exchange([indptr.diff() for indptr, _, _ in answers]))
    indices = torch.cat(peers.exchange([columns for _, columns, _ in answers]))
    values = torch.cat(peers.exchange([weights for _, _, weights in answers]))
    return offsets_of(lengths), indices, values
