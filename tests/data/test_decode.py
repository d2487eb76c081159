"""One decoding path: the same pixels from a folder and from an archive, grey levels kept, bombs refused."""

from __future__ import annotations

import io
import os
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ise_fast.data import DatasetError, archive, open_images, read_image


def picture(mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int], *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + rows + chunk(b"IEND", b"")


def zipped(path: Path, name: str = "a/b.png", method: int = zipfile.ZIP_DEFLATED) -> Path:
    target = path.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", method) as opened:
        opened.write(path, name)
    return target / name


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_orientation_is_the_same_in_folder_and_archive(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    picture().save(path, exif=exif)
    plain, archived = read_image(path), read_image(zipped(path, f"x.{suffix}"))
    assert plain.size == ((4, 6) if orientation > 4 else (6, 4))
    assert np.array_equal(np.asarray(plain), np.asarray(archived))
    if suffix == "png":
        with Image.open(path) as stored:
            assert not np.array_equal(np.asarray(stored), np.asarray(plain))


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("jpg", "CMYK"), ("jpg", "L"), ("png", "P"), ("png", "LA"), ("png", "RGBA"), ("png", "1"), ("gif", "P"),
     ("tif", "RGBA"), ("webp", "RGBA"), ("ppm", "RGB"), ("mpo", "RGB"), ("jfif", "RGB"), ("tga", "RGBA")],
)  # fmt: skip
def test_every_mode_is_rgb_and_the_same_in_an_archive(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"x.{suffix}"
    kind = {"jfif": "JPEG", "mpo": "MPO"}.get(suffix)
    picture(mode).save(path, format=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = read_image(path)
    assert (plain.mode, plain.size) == ("RGB", (6, 4))
    with Image.open(path) as stored:
        assert np.array_equal(np.asarray(plain), np.asarray(stored.convert("RGB")))
    assert np.array_equal(np.asarray(plain), np.asarray(read_image(zipped(path, path.name))))


def test_palette_with_transparency_and_frames(tmp_path: Path) -> None:
    frames = [picture().quantize(8), Image.new("P", (6, 4))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert len(np.unique(np.asarray(read_image(tmp_path / "a.gif")))) > 8  # the first frame, which is not blank
    frames[0].save(tmp_path / "p.png", transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(read_image(tmp_path / "p.png")), np.asarray(frames[0].convert("RGB")))


def refusal(path: Path) -> tuple[str, int]:
    """Why the image cannot be read, and the bytes that Python held at most while finding out."""
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError) as caught:
            read_image(path)
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def levels(path: Path) -> np.ndarray:
    return np.unique(np.asarray(read_image(path))[..., 0])


@pytest.mark.parametrize(
    ("low", "high"), [(0, 65_535), (0, 4_095), (0, 1_023), (7_000, 9_000), (30_000, 60_000)], ids=str
)
@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_wide_grey_keeps_its_levels(tmp_path: Path, suffix: str, low: int, high: int) -> None:
    ramp = np.linspace(low, high, 64 * 32).reshape(64, 32).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"x.{suffix}")
    found = np.asarray(read_image(tmp_path / f"x.{suffix}"))[..., 0].astype(int)
    assert len(np.unique(found)) > 100
    assert (np.diff(found.ravel()) >= (0 if suffix != "jp2" else -2)).all()  # jp2 loses a little


@pytest.mark.parametrize("order", ["<", ">"])
def test_wide_grey_of_other_modes(tmp_path: Path, order: str) -> None:
    ramp = np.linspace(0, 65_535, 64 * 32).reshape(64, 32)
    Image.frombytes("I;16B" if order == ">" else "I;16", (32, 64), ramp.astype(f"{order}u2").tobytes()).save(
        tmp_path / "x.tif"
    )
    assert levels(tmp_path / "x.tif").tolist() == list(range(256))
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "i.tif")
    assert levels(tmp_path / "i.tif").tolist() == list(range(256))
    (tmp_path / "g.pgm").write_bytes(b"P5 32 64 1023\n" + (ramp // 64).astype(">u2").tobytes())
    assert len(levels(tmp_path / "g.pgm")) == 256


def test_eight_bits_in_a_wider_file_are_the_same_picture(tmp_path: Path) -> None:
    grey = np.asarray(picture("L")) // 8 + 40  # few levels, no white, no black
    for name, values in (
        ("w.png", grey.astype(np.uint16) * 257),
        ("i.tif", grey.astype(np.int32)),
        ("f.tif", grey.astype(np.float32)),
        ("u.tif", (grey / 255).astype(np.float32)),
    ):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(np.asarray(read_image(tmp_path / name))[..., 1], grey), name


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (65_535, 255), (30_000, 117)])
def test_one_wide_grey_stays_that_grey(tmp_path: Path, value: int, grey: int) -> None:
    Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / "x.png")
    assert levels(tmp_path / "x.png").tolist() == [grey]


def test_wide_grey_takes_no_multiple_of_its_memory(tmp_path: Path) -> None:
    Image.fromarray(np.arange(4 << 20, dtype=np.uint32).astype(np.uint16).reshape(2048, 2048)).save(tmp_path / "x.tif")
    tracemalloc.start()
    read_image(tmp_path / "x.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20  # 8 MB in the file


@pytest.mark.parametrize("values", [np.array([[290.5, 310.0]]), np.array([[0.0, np.nan]]), np.array([[-1.0, 1.0]])])
def test_floats_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DatasetError, match=r"x\.tif cannot be read: expected float values from 0 to 1 or 0 to 255"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("values", [(0, 70_000), (-5, 300)])
def test_integers_beyond_16_bits_are_refused(tmp_path: Path, values: tuple[int, int]) -> None:
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(DatasetError, match=r"x\.tif cannot be read: expected grey values from 0 to 65535"):
        read_image(tmp_path / "x.tif")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, "expected a file, got a pipe"),
        (make_link_to_pipe, "expected a file, got a pipe"),
        (make_device, "expected a file, got a device"),
        (Path.mkdir, "expected a file, got a folder"),
        (make_loop, "Too many levels"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (Path.touch, "no image format that can be decoded"),
        (
            lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n"),
            "no image format that can be decoded",
        ),
    ],
)
def test_what_is_no_image_file_is_named_at_once(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    make(tmp_path / "x.jpg")
    picture().save(tmp_path / "y.jpg")
    with pytest.raises(DatasetError, match=rf"x\.jpg cannot be read: .*{reason}"):
        read_image(tmp_path / "x.jpg")
    store = open_images([tmp_path / "x.jpg", tmp_path / "y.jpg"], (4, 4), on_error="skip")
    assert store.kept.tolist() == [1]


@pytest.mark.parametrize("size", [(13_000, 13_000), (60_000, 60_000), (2_000_000, 50)])
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_before_they_are_made(
    tmp_path: Path, size: tuple[int, int], archived: bool
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(size))
    message, memory = refusal(zipped(path) if archived else path)
    assert re.search(r"\.png cannot be read: .*(pixels are more than|exceeds limit)", message)
    assert memory < 1 << 20


@pytest.mark.parametrize("kind", [b"abCd", b"teXt"])
@pytest.mark.parametrize("mebibytes", [8, 40])
def test_members_that_inflate_beyond_measure_are_refused(tmp_path: Path, kind: bytes, mebibytes: int) -> None:
    bomb = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened,
        opened.open("x.png", "w", force_zip64=True) as file,
    ):
        file.write(png((8, 8))[:33])
        file.write(struct.pack(">I", mebibytes << 20) + kind)
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    message, memory = refusal(bomb / "x.png")
    assert re.search(r"x\.png cannot be read: \d+ bytes inflate to \d+", message)
    assert memory < 1 << 20


def test_members_larger_than_any_image_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(size=(60, 40)).save(tmp_path / "x.bmp")
    path = zipped(tmp_path / "x.bmp", "x.bmp", zipfile.ZIP_STORED)
    assert read_image(path).size == (60, 40)
    monkeypatch.setattr(archive, "MAX_BYTES", 7_000)
    assert "7254 bytes inflate to 7254" in refusal(path)[0]


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_compressed_text_and_profiles_of_a_png_are_bounded(tmp_path: Path, kind: str) -> None:
    packed = zlib.compress(bytes(24 << 20))
    head = {"zTXt": b"k\0\0", "iTXt": b"k\0\x01\0\0\0", "iCCP": b"k\0\0"}[kind]
    (tmp_path / "x.png").write_bytes(png((8, 8), chunk(kind.encode(), head + packed)))
    message, memory = refusal(tmp_path / "x.png")
    assert "x.png cannot be read: Decompressed data too large" in message
    assert memory < 4 << 20


def test_large_and_well_packed_members_are_read(tmp_path: Path) -> None:
    Image.new("RGB", (1_200, 1_000), (9, 8, 7)).save(tmp_path / "blank.bmp")  # 3.6 MB to 4 KB
    assert read_image(zipped(tmp_path / "blank.bmp", "blank.bmp")).getpixel((5, 5)) == (9, 8, 7)


@pytest.mark.parametrize("folder", ["people.zip", "people.ZIP", "a.zip/b.zip"])
def test_a_folder_may_be_called_like_an_archive(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "1.png"
    path.parent.mkdir(parents=True)
    picture().save(path)
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(picture()))
    archived = zipped(path, "x/1.png")
    for cache in ("memory", "disk", "none"):
        store = open_images([path, archived], (4, 6), cache, cache_dir=tmp_path / "cache")
        assert np.array_equal(store.batch([0]).numpy(), store.batch([1]).numpy())


@pytest.mark.parametrize("written", ["/etc/x.png", "C:\\data\\x.png", "a\\x.png", "./a/x.png", "a//x.png"])
def test_members_are_found_by_clean_names(tmp_path: Path, written: str) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(written, buffer.getvalue())
    clean = written.replace("C:", "").replace("\\", "/").replace("//", "/").replace("./", "").lstrip("/")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.zip" / clean)), np.asarray(picture()))


@pytest.mark.parametrize("written", ["../x.png", "a/../../x.png", "..\\x.png"])
def test_members_that_lead_out_of_the_archive_are_refused(tmp_path: Path, written: str) -> None:
    picture().save(tmp_path / "x.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.write(tmp_path / "x.png", written)
    with pytest.raises(DatasetError, match="leads out of it"):
        read_image(tmp_path / "a.zip" / "x.png")


def test_damaged_members_are_named(tmp_path: Path) -> None:
    picture(size=(60, 40)).save(tmp_path / "x.png")
    path = zipped(tmp_path / "x.png", "x.png", zipfile.ZIP_STORED)
    file = path.parent
    whole = file.read_bytes()
    with pytest.raises(DatasetError, match=r"y\.png cannot be read: the archive has no such member"):
        read_image(file / "y.png")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"x\.png cannot be read: File is not a zip file"):
        read_image(path)
    place = whole.index(b"PK\x01\x02")
    file.write_bytes(whole[: place + 8] + b"\x01" + whole[place + 9 :])  # the flag of encryption
    with pytest.raises(DatasetError, match=r"x\.png cannot be read: it is encrypted"):
        read_image(path)
    file.write_bytes(whole)  # the archive as it is now counts, not as it was opened before
    assert read_image(path).size == (60, 40)


@pytest.mark.parametrize("name", [b"M\xfcller.jpg", b"\x83n\x83C.jpg", b"a\nb.jpg"])
def test_names_need_not_be_utf8(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    broken = path.with_name("x" + path.name)
    with open(path, "wb") as file:
        picture().save(file, "JPEG")
    broken.touch()
    for _ in range(2):  # the second time from the file
        store = open_images([path, broken], (4, 6), "disk", on_error="skip", cache_dir=tmp_path / "cache")
        assert store.batch([0]).equal(open_images([path], (4, 6)).batch([0]))
        assert [skipped for skipped, _ in store.skipped] == [broken]


def test_an_icon_does_not_bring_in_a_larger_image(tmp_path: Path) -> None:
    inner = png((13_000, 13_000))
    entry = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 8, 8, 0, 0, 1, 32, len(inner), 22)
    (tmp_path / "x.png").write_bytes(entry + inner)
    assert "no image format that can be decoded" in refusal(tmp_path / "x.png")[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_the_smallest_images(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "x.png")
    assert open_images([tmp_path / "x.png"], (8, 4)).batch([0])[0, :, 7, 3].tolist() == [1, 2, 3]
