"""CycAs: which frames are drawn, and the loss of a batch of pairs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ise_fast.methods import Batch
from ise_fast.methods.cycas import CYCAS, CycAsObjective, CycAsSettings, NoMemory
from ise_fast.methods.frame_labels import FrameLabels, FrameSettings, frames_of_moments
from ise_fast.nn import CycleAssociationLoss

#: (camera, frame, images, drawn within 100 frames)
SHOWN = [
    (0, 0, 2, True), (0, 99, 3, True),  # a moment
    (0, 100, 2, False), (0, 150, 1, False), (0, 250, 2, False),  # one image; alone
    (1, 0, 1, False), (1, 10, 2, False),
    (1, 1_000_000_300, 2, True), (1, 1_000_000_301, 2, True), (1, 1_000_000_399, 4, True),
    (2, -1, 5, False),
]  # fmt: skip


def test_frames_of_a_moment_with_several_images_are_drawn() -> None:
    rows = [(camera, frame, drawn) for camera, frame, images, drawn in SHOWN for _ in range(images)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    cams, frames, drawn = (torch.tensor([rows[i][part] for i in order]) for part in range(3))
    labels, moments = frames_of_moments(cams, frames, 100)
    assert (labels >= 0).equal(drawn.bool())
    assert (moments >= 0).equal(drawn.bool())
    at = {
        key: (int(y), int(m))
        for key, y, m in zip(zip(cams.tolist(), frames.tolist(), strict=True), labels, moments, strict=True)
    }
    assert [at[camera, frame] for camera, frame, _, kept in SHOWN if kept] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)]
    one_camera, _ = frames_of_moments(None, frames, 100)
    assert int((one_camera >= 0).sum()) == int(drawn.sum()) + 3  # frames 0 and 10 of camera 1 are of the first moment


def test_what_is_unknown_is_said() -> None:
    labels = FrameLabels(FrameSettings(100))
    with pytest.raises(ValueError, match=r"^--labels: by-frame needs the frames of the training images, and none are"):
        labels.know(None, None)
    with pytest.raises(ValueError, match=r"^--frame-window: 100 frames of a camera never hold two with two images"):
        labels.know(None, torch.tensor([0, 0, 100, 100]))
    labels.know(None, torch.tensor([0, 0, 99, 99, 99]))
    pseudo = labels(torch.zeros(5, 3), None, 4)
    assert pseudo.labels.tolist() == [0, 0, 1, 1, 1]
    assert pseudo.drawn.tolist() == [0] * 5


def test_the_loss_of_a_batch_is_the_mean_over_its_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    frames = [normalize(torch.randn(n, 6, generator=g), dim=1) for n in (2, 3, 4, 2, 1)]
    labels = torch.tensor([7, 7, 3, 3, 3, 0, 0, 0, 0, 7, 7, 5])  # a frame may come again, not next to itself
    batch = Batch(torch.arange(12), labels, None)
    x = torch.cat(frames).requires_grad_()
    output = CycAsObjective(CycAsSettings(0.4, 1.5))(x, batch, NoMemory(), 0.0)
    loss = CycleAssociationLoss(0.4, 1.5)
    expected = (loss(frames[0], frames[1]) + loss(frames[2], frames[3])) / 2
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    output.loss.backward()
    assert x.grad is not None
    assert (x.grad[:11].norm(dim=1) > 0).all()
    assert not x.grad[11].any()  # the last frame had no room for its partner


def test_nothing_is_extracted_or_remembered() -> None:
    memory = CYCAS.memory(CycAsSettings(), 8)
    assert not memory.reads_features
    assert not FrameLabels.reads_features
    assert memory.state_dict() == {}
