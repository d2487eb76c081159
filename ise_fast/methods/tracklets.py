"""Tracklets as a constraint: images of one track are of one cluster, whatever found the clusters."""

from __future__ import annotations

import torch
from torch import Tensor


def follow_tracklets(labels: Tensor, tracklets: Tensor) -> Tensor:
    """Every image of a tracklet gets the label that is most frequent in it; ties go to the lower label.

    Outliers have no vote, so that a tracklet of which one image has a cluster is in it; one without stays outside.

    Args:
        labels: [N] int64, -1 for outliers.
        tracklets: [N] int64, -1 for an image in none.

    Returns:
        [N] int64, numbered anew from 0 in the order of the old labels: clusters may have lost all of their images.

    Example:
        >>> follow_tracklets(torch.tensor([2, 0, 0, -1, 2, -1]), torch.tensor([0, 0, 0, 0, -1, -1]))
        tensor([ 0,  0,  0,  0,  1, -1])
    """
    voting = (labels >= 0) & (tracklets >= 0)
    pairs, votes = torch.unique(torch.stack([tracklets[voting], labels[voting]]), dim=1, return_counts=True)
    # Pairs are sorted; the last write of each tracklet counts, so the fewest votes and the highest labels go first.
    order = torch.arange(len(votes) - 1, -1, -1, device=labels.device)
    order = order[votes[order].argsort(stable=True)]
    winner = labels.new_full((int(tracklets.max()) + 1 if len(tracklets) else 0,), -1)
    for tracklet, label in pairs[:, order].T.tolist():
        winner[tracklet] = label
    followed = torch.where(tracklets >= 0, winner[tracklets.clamp_min(0)], labels) if len(winner) else labels
    kept = followed >= 0
    result = torch.full_like(labels, -1)
    result[kept] = torch.unique(followed[kept], return_inverse=True)[1]
    return result
