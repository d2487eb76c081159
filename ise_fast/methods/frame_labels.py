"""No clustering (`--labels by-frame`): the people of a frame, and frames of one moment to compare them with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast.methods.interface import Labeller, LabelSource, flag
from ise_fast.methods.records import PseudoLabels


@dataclass(frozen=True)
class FrameSettings:
    """Frames of a camera's video."""

    frame_window: int = flag(100, "by-frame: frames of a camera are of one moment within so many of them, from 0 on")


class FrameLabels(Labeller):
    """Labels are frames, groups are moments: a window of a camera. Frames of one image, and alone in theirs, are not
    drawn."""

    reads_features = False

    def __init__(self, settings: FrameSettings) -> None:
        self.window = settings.frame_window

    def know(self, cams: Tensor | None, frames: Tensor | None) -> None:
        if frames is None:
            raise ValueError(
                "--labels: by-frame needs the frames of the training images, and none are known; --labels-csv may tell "
                "them in a column frame"
            )
        self.labels, self.moments = frames_of_moments(cams, frames, self.window)
        if not (self.moments >= 0).any():
            raise ValueError(
                f"--frame-window: {self.window} frames of a camera never hold two with two images each; raise it"
            )

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        return PseudoLabels(self.labels, groups=self.moments)


def frames_of_moments(cams: Tensor | None, frames: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Frames with several images, where the moment has several of them.

    Args:
        cams: [N] int64, or None: one camera.
        frames: [N] int64 by time, -1: unknown.
        window: frames of a moment.

    Returns:
        (labels, moments), both [N] int64 from 0 on, -1 for an image that is not drawn.
    """
    cams = torch.zeros_like(frames) if cams is None else cams
    places, frame, sizes = torch.unique(torch.stack([cams, frames], 1), dim=0, return_inverse=True, return_counts=True)
    several = (sizes > 1) & (places[:, 1] >= 0)
    _, moment = torch.unique(torch.stack([places[:, 0], places[:, 1] // window], 1), dim=0, return_inverse=True)
    kept = several & (torch.bincount(moment[several], minlength=len(places))[moment] > 1)
    number = torch.where(kept, kept.cumsum(0) - 1, -1)
    _, dense = torch.unique(moment[kept], return_inverse=True)
    moment = torch.full_like(number, -1).masked_scatter(kept, dense)
    return number[frame], moment[frame]


BY_FRAME = LabelSource(settings=FrameSettings, make=lambda settings, seed: FrameLabels(settings))
