"""One image of a synthetic pedestrian: who, where, when, and the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .figure import Figure
from .person import Frame, Person
from .scene import Camera, background, expose, occlude

DISTRACTOR = 0
JUNK = -1


@dataclass(frozen=True)
class Shot:
    """One image: where it goes, and who is seen by which camera in which frame."""

    folder: str
    label: int  # identity in the file name: the person, DISTRACTOR or JUNK
    person: int
    camera: int  # from 1
    frame: int

    @property
    def file(self) -> tuple[str, str]:
        """(folder, name) in the grammar of Market-1501: identity, camera, sequence, frame, detection."""
        label = f"{self.label:04d}" if self.label >= 0 else str(self.label)
        # Strangers of one camera share label and frame numbers: the person tells them apart.
        frame = self.frame if self.label > 0 else self.person * 100
        return self.folder, f"{label}_c{self.camera}s1_{frame:06d}_01.jpg"


def render(shot: Shot, size: tuple[int, int], seed: int, camera_shift: float = 1.0) -> Image.Image:
    """The image of a shot: scene and figure drawn larger, reduced, then seen through the camera.

    Args:
        shot: what is seen.
        size: (height, width) of the image.
        seed: of the data set.
        camera_shift: how much cameras differ; 0: not at all.
    """
    height, width = size
    zoom = 2 if height >= 200 else 4
    canvas_size = (width * zoom, height * zoom)
    random = np.random.default_rng((seed, 4, shot.person, shot.camera, shot.frame))
    camera = Camera.draw(seed, shot.camera, camera_shift)
    frame = Frame.draw(seed, shot.person, shot.camera, shot.frame, camera.views)
    canvas = background(camera, frame.place, canvas_size)
    empty = shot.label == DISTRACTOR and random.random() < 0.3  # a false alarm of the detector
    if not empty:
        _add_person(canvas, shot, frame, seed, random)
    if random.random() < 0.08:
        occlude(canvas, random)
    return expose(canvas.resize((width, height), Image.Resampling.BOX), camera, random)


def _add_person(canvas: Image.Image, shot: Shot, frame: Frame, seed: int, random: np.random.Generator) -> None:
    person = Person.draw(seed, shot.person)
    unit = person.height * frame.scale * canvas.height
    x, y = 0.5 + random.uniform(-0.06, 0.06), random.uniform(0.93, 0.98)
    if shot.label == JUNK:  # badly cut: too large, too low, too far to the side
        unit *= random.uniform(1.3, 2.0)
        x, y = 0.5 + random.uniform(-0.35, 0.35), y + random.uniform(0.1, 0.6)
    Figure(canvas, person, frame.view, frame.phase, unit, foot=(x * canvas.width, y * canvas.height)).draw()
