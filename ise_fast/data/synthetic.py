"""The synthetic data set: generated pedestrians in the market1501 layout, for training without any download.

A known truth of any size: identities share clothing, build and belongings in part, every camera has its own light,
view, background and blur (`pedestrians` draws them). All bytes follow from the specification and its seed, for one
version of Pillow; an image does not depend on how many others are made or on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import DatasetError, ReIDDataset, option_error
from .files import exclusive, publish
from .market import PERSON_FOLDERS, MarketLayout, load_market_layout
from .pedestrians import DISTRACTOR, JUNK, Shot, render
from .sampler import occurrence

VERSION = 3  # raise when the pictures change: finished sets of older versions are then made anew
RECORD = "synthetic.json"
PROCESSES_FROM = 4_000  # below this many images, starting processes takes longer than drawing


@dataclass(frozen=True)
class SyntheticSpec:
    """What is generated. The defaults train in about two minutes on two cores.

    Attributes:
        train_identities, test_identities: people; the two groups have nobody in common.
        cameras: every person is seen by at least two of them.
        train_images, query_images, gallery_images: sizes of the three folders, distractors counted, junk not.
        distractors: images of identity 0 in the gallery: people nobody asks for and empty scenes.
        junk: images of identity -1 in the gallery, which every loader drops.
        height, width: of the images, in pixels.
        camera_shift: how much light, sharpness and background differ between cameras. The larger, the fewer people an
            untrained network finds again; from 2 on its clusters are rather those of cameras than of people.
        seed: of everything.
    """

    train_identities: int = 40
    test_identities: int = 30
    cameras: int = 6
    train_images: int = 960
    query_images: int = 100
    gallery_images: int = 480
    distractors: int = 40
    junk: int = 20
    height: int = 64
    width: int = 32
    camera_shift: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        minimum = {"train_identities": 1, "test_identities": 1, "cameras": 2, "height": 16, "width": 8}
        for name, value in asdict(self).items():
            if value < minimum.get(name, 0):
                raise option_error("synthetic", name, f"at least {minimum.get(name, 0)}", value)
        for name, images, people in (
            ("train_images", self.train_images, self.train_identities),
            ("gallery_images", self.gallery_images - self.distractors, self.test_identities),
        ):
            if images < 2 * people:
                raise option_error("synthetic", name, f"two images for each of {people} identities", images)

    @classmethod
    def market_size(cls, seed: int = 0) -> SyntheticSpec:
        """As many people, cameras and images, of the same size, as Market-1501."""
        return cls(751, 750, 6, 12_936, 3_368, 15_913, 2_793, 3_819, 256, 128, seed=seed)

    @property
    def folder_name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.record()).encode()).hexdigest()[:8]
        people, images = self.train_identities, self.train_images
        return f"{people}ids-{images}images-{self.cameras}cameras-{self.height}x{self.width}-seed{self.seed}-{digest}"

    def record(self) -> dict[str, float]:
        return {"version": VERSION, **asdict(self)}


def load_synthetic(data_dir: Path, *, workers: int | None = None, **options: Any) -> ReIDDataset:
    """The synthetic data set below `data_dir / "synthetic"`, generated if it is not there.

    Args:
        data_dir: data root; made if it does not exist.
        workers: processes that draw (all cores when left out).
        options: fields of `SyntheticSpec`.

    Raises:
        DatasetError: for an impossible specification or if data_dir cannot be written.
    """
    try:
        spec = SyntheticSpec(**options)
    except TypeError:
        known = ", ".join(asdict(SyntheticSpec()))
        raise DatasetError(f"synthetic: unknown option among {', '.join(options)}; known are {known}") from None
    return generate_synthetic(data_dir / "synthetic" / spec.folder_name, spec, workers=workers)


def generate_synthetic(
    root: Path | str, spec: SyntheticSpec | None = None, *, workers: int | None = None
) -> ReIDDataset:
    """Generate the data set in `root`, unless a finished one with the same specification is there, and open it.

    The folder appears under its name when all images are in it. Processes that ask for the same folder at the same
    time wait for the first.

    Args:
        root: folder to make, in the market1501 layout.
        spec: what to generate; the small default when left out.
        workers: processes that draw (all cores when left out).

    Raises:
        DatasetError: if root holds something else, or cannot be written.
    """
    root, spec = Path(root), spec or SyntheticSpec()
    try:
        if not _is_finished(root, spec):  # a finished set may lie in a folder that can only be read
            with exclusive(root.with_name(f".{root.name}.lock")):
                if not _is_finished(root, spec):  # nor has another process made it meanwhile
                    _generate(root, spec, workers or os.cpu_count() or 1)
    except OSError as error:
        raise DatasetError(f"synthetic: {root} cannot be written: {error}") from error
    layout = MarketLayout(
        name="synthetic",
        inner=".",
        pattern=r"([-\d]+)_c(\d+)",
        cameras={camera: camera - 1 for camera in range(1, spec.cameras + 1)},
        published={
            "train": (spec.train_identities, spec.train_images),
            "query": (None, spec.query_images),
            "gallery": (None, spec.gallery_images),
        },
        image_size=(spec.height, spec.width),
    )
    return load_market_layout(root, layout)


def _is_finished(root: Path, spec: SyntheticSpec) -> bool:
    if not root.exists():
        return False
    record = root / RECORD
    if record.is_file():
        return bool(json.loads(record.read_text(encoding="utf-8")) == spec.record()) or _refuse(
            root, "another specification"
        )
    return any(root.iterdir()) and _refuse(root, "other files")


def _refuse(root: Path, content: str) -> bool:
    raise DatasetError(f"synthetic: {root} holds {content}; choose another folder or remove it")


def _generate(root: Path, spec: SyntheticSpec, workers: int) -> None:
    with publish(root, folder=True) as temporary:
        _write_images(temporary, spec, workers)
        (temporary / RECORD).write_text(json.dumps(spec.record(), indent=1) + "\n", encoding="utf-8")


def _write_images(root: Path, spec: SyntheticSpec, workers: int) -> None:
    for folder in PERSON_FOLDERS:
        (root / folder).mkdir()
    shots = list(plan(spec))
    write = partial(_write_one, root, spec)
    if workers == 1 or len(shots) < PROCESSES_FROM:
        for shot in shots:
            write(shot)
        return
    # A fork would copy the thread pools of torch in a state that nobody can use.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(write, shots, chunksize=64):
            pass


def _write_one(root: Path, spec: SyntheticSpec, shot: Shot) -> None:
    folder, name = shot.file
    render(shot, (spec.height, spec.width), spec.seed, spec.camera_shift).save(root / folder / name, quality=90)


def plan(spec: SyntheticSpec) -> Iterator[Shot]:
    """Every image of the data set: who is seen by which camera in which frame, and the file it goes to."""
    random = np.random.default_rng((spec.seed, 0))
    people = 1 + random.permutation(spec.train_identities + spec.test_identities)
    train, test = np.sort(people[: spec.train_identities]), np.sort(people[spec.train_identities :])
    train_folder, query_folder, gallery_folder = PERSON_FOLDERS

    yield from _shots(train_folder, _appearances(train, spec.cameras, spec.train_images, random), first_frame=0)
    appearances = _appearances(test, spec.cameras, spec.gallery_images - spec.distractors, random)
    yield from _shots(gallery_folder, appearances, first_frame=0)
    # Queries come from the places where the person is in the gallery too: one per place before a second of any.
    # Frames of their own keep them different from the gallery's images.
    places = random.permutation(np.array(list(appearances)))
    places = places[np.argsort(occurrence(places[:, 0]), kind="stable")]
    asked = np.resize(np.arange(len(places)), spec.query_images)
    queries = {(int(person), int(camera)): 0 for person, camera in places[np.unique(asked)]}
    for place in places[asked]:
        queries[int(place[0]), int(place[1])] += 1
    yield from _shots(query_folder, queries, first_frame=5_000)

    for label, count in ((DISTRACTOR, spec.distractors), (JUNK, spec.junk)):
        cameras = random.integers(1, spec.cameras + 1, count)
        for number, camera in enumerate(cameras):
            # Nobody in the test set: a stranger of his own, numbered behind all people of the set.
            stranger = len(people) + 1 + number + (spec.distractors if label == JUNK else 0)
            yield Shot(gallery_folder, label, stranger, int(camera), number)


def _appearances(
    people: NDArray[np.int64], cameras: int, images: int, random: np.random.Generator
) -> dict[tuple[int, int], int]:
    """(person, camera) -> images: at least two cameras a person, one image a place, the rest unevenly spread."""
    affordable = min(cameras, images // len(people))
    seen = random.integers(min(max(2, affordable - 2), affordable), affordable + 1, len(people))
    places = [
        (int(person), int(camera) + 1)
        for person, count in zip(people, seen, strict=True)
        for camera in np.sort(random.permutation(cameras)[:count])
    ]
    weights = random.gamma(2.0, size=len(places))
    extra = random.multinomial(images - len(places), weights / weights.sum())
    return {place: 1 + int(more) for place, more in zip(places, extra, strict=True)}


def _shots(folder: str, appearances: dict[tuple[int, int], int], first_frame: int) -> Iterator[Shot]:
    for (person, camera), count in appearances.items():
        for frame in range(first_frame, first_frame + count):
            yield Shot(folder, person, person, camera, frame)
