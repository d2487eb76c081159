"""Decoded images: equal for every cache, found again, never half-written, unreadable ones named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ise_fast.data import DatasetError, images, open_images, read_image

WriteImages = Callable[[Path, Iterable[str]], None]
SIZE = (10, 5)


@pytest.fixture
def paths(tmp_path: Path, write_images: WriteImages) -> list[Path]:
    names = [f"{i:02d}.png" for i in range(12)]
    write_images(tmp_path / "images", names)
    return [tmp_path / "images" / name for name in names]


def truth(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).resize(SIZE[::-1], Image.Resampling.BICUBIC)).transpose(2, 0, 1)


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_every_cache_gives_the_resized_images(paths: list[Path], tmp_path: Path, cache: str) -> None:
    store = open_images(paths, SIZE, cache, workers=3, cache_dir=tmp_path / "cache", progress=True)
    assert len(store) == 12
    batch = store.batch(torch.tensor([3, 0, 3]))
    assert (batch.dtype, tuple(batch.shape)) == (torch.uint8, (3, 3, 10, 5))
    assert np.array_equal(batch.numpy(), np.stack([truth(paths[i]) for i in (3, 0, 3)]))
    assert tuple(store.batch([]).shape) == (0, 3, 10, 5)
    assert (store.images is None) == (cache == "none")
    assert store.kept.tolist() == list(range(12))
    by_text = open_images([str(path) for path in paths], SIZE, cache, cache_dir=tmp_path / "cache")
    assert torch.equal(by_text.batch([5]), store.batch([5]))


def test_grey_palette_and_rotated_images_become_upright_rgb(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    Image.new("P", (4, 4)).save(tmp_path / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to look at it
    Image.new("RGB", (6, 2)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "grey.png").getpixel((0, 0)) == (77, 77, 77)
    assert read_image(tmp_path / "palette.png").mode == "RGB"
    assert read_image(tmp_path / "turned.jpg").size == (2, 6)


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_unreadable_images_are_named_or_skipped(paths: list[Path], tmp_path: Path, cache: str) -> None:
    paths[0].write_bytes(b"no image")
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    paths[9].unlink()
    cache_dir = tmp_path / "cache"
    with pytest.raises(DatasetError, match=r"00\.png cannot be read.*|00\.png.*on_error='skip'"):
        open_images(paths, SIZE, cache, cache_dir=cache_dir).batch([0])
    for _ in range(2):  # the second time from the file
        store = open_images(paths, SIZE, cache, on_error="skip", cache_dir=cache_dir)
        assert store.kept.tolist() == [1, 2, 3, 4, 5, 6, 8, 10, 11]
        assert [path.name for path, _ in store.skipped] == ["00.png", "07.png", "09.png"]
        assert len(store) == 9
        assert np.array_equal(store.batch(range(9)).numpy(), np.stack([truth(paths[i]) for i in store.kept]))
    with pytest.raises(DatasetError, match=r"00\.png"):
        open_images(paths, SIZE, cache, cache_dir=cache_dir).batch([0])
    with pytest.raises(DatasetError, match="none of 1 images can be read"):
        open_images(paths[:1], SIZE, cache, on_error="skip", cache_dir=cache_dir)


def test_the_file_is_used_again_until_an_image_changes(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    real = images.read_pixels
    monkeypatch.setattr(images, "read_pixels", lambda path, size: decoded.append(path) or real(path, size))

    def open_again(size: tuple[int, int] = SIZE) -> torch.Tensor:
        decoded.clear()
        return open_images(paths, size, "disk", cache_dir=tmp_path / "cache").batch([5])

    open_again()
    assert len(decoded) == 12
    first = open_again()
    assert decoded == []
    first += 1  # a batch is a copy
    assert np.array_equal(open_again()[0].numpy(), truth(paths[5]))
    Image.new("RGB", (8, 8), (1, 2, 3)).save(paths[5])
    assert open_again()[0, :, 0, 0].tolist() == [1, 2, 3]
    assert len(decoded) == 12
    open_again((4, 4))
    assert len(decoded) == 12


def test_those_who_want_the_same_file_wait_for_the_first(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    real = images.read_pixels

    def slow(path: Path, size: tuple[int, int]) -> np.ndarray:
        time.sleep(0.01)
        decoded.append(path)
        return real(path, size)

    monkeypatch.setattr(images, "read_pixels", slow)
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda _: open_images(paths, SIZE, "disk", cache_dir=tmp_path / "cache"), range(3)))
    assert len(decoded) == len(paths)
    assert all(torch.equal(store.batch(range(12)), stores[0].batch(range(12))) for store in stores)


WRITER = """
import sys, time
from pathlib import Path
from ise_fast.data import images
real = images.read_pixels
calls = []
def slow(path, size):
    calls.append(path)
    if len(calls) == 3:
        time.sleep(10_000)  # until it is killed
    return real(path, size)
images.read_pixels = slow
print("start", flush=True)
images.open_images(sorted(Path(sys.argv[1]).iterdir()), (10, 5), "disk", workers=1, cache_dir=sys.argv[2])
"""


def test_a_killed_writer_leaves_nothing_that_looks_finished(paths: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(paths[0].parent), str(cache)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    while not list(cache.glob(".*.partial")):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(cache.glob(".*.partial"))
    assert not list(cache.glob("*.u8"))
    store = open_images(paths, SIZE, "disk", cache_dir=cache)
    assert np.array_equal(store.batch(range(12)).numpy(), np.stack([truth(path) for path in paths]))
    assert not list(cache.glob(".*.partial"))


def test_a_file_without_its_record_is_made_again(paths: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    open_images(paths, SIZE, "disk", cache_dir=cache)
    (data,) = cache.glob("*.u8")
    (record,) = cache.glob("*.json")
    record.unlink()
    data.write_bytes(b"\0" * data.stat().st_size)
    store = open_images(paths, SIZE, "disk", cache_dir=cache)
    assert np.array_equal(store.batch([1])[0].numpy(), truth(paths[1]))


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"failures": [1]}', '{"failures": {"x": "y"}}', None])
def test_a_damaged_cache_is_made_again(paths: list[Path], tmp_path: Path, record: str | None) -> None:
    cache = tmp_path / "cache"
    open_images(paths, SIZE, "disk", cache_dir=cache)
    if record is None:
        (data,) = cache.glob("*.u8")
        os.truncate(data, data.stat().st_size - 1)
    else:
        next(cache.glob("*.json")).write_text(record)
    store = open_images(paths, SIZE, "disk", cache_dir=cache)
    assert np.array_equal(store.batch([11])[0].numpy(), truth(paths[11]))


def test_a_full_disk_is_an_error_and_leaves_nothing(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        open_images(paths, SIZE, "disk", cache_dir=tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "ram"}, "cache: expected memory, disk or none, got 'ram'"),
        ({"on_error": "ignore"}, "on_error: expected raise or skip"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"size": (0, 5)}, "size: expected"),
        ({"cache": "disk"}, "cache_dir: expected a folder"),
    ],
)
def test_wrong_options_are_named(paths: list[Path], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_images(paths, **{"size": SIZE, **options})


def test_package_imports_without_torchvision() -> None:
    code = "import ise_fast.data, sys; print([m for m in ('torchvision', 'matplotlib', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
