"""The images of a gallery that are nearest to new ones: `ise-fast search IMAGES ... --gallery FILE --checkpoint C`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ise_fast.commands.command import Parser, check_count, check_suffix, check_target, finish, user_path
from ise_fast.commands.feature_file import check_names, read_features, write_columns
from ise_fast.engine.console import show

PROG = "ise-fast search"
TABLES = (".csv", ".json", ".npz", ".parquet")
PICTURES = (".png", ".jpg", ".webp")


def parser() -> Parser:
    result = Parser(prog=PROG, description="Find the nearest images of a gallery, exactly, by cosine.")
    result.add_argument("images", nargs="+", type=user_path, help="the images to look for")
    result.add_argument("--checkpoint", required=True, type=user_path, help="such as logs/NAME/checkpoints/best.pt")
    result.add_argument(
        "--gallery", required=True, type=user_path, help="a folder of images, or a file of `ise-fast embed` with paths"
    )
    result.add_argument("-k", type=int, default=10, help="images to find for each")
    result.add_argument(
        "-o", "--output", type=user_path, action="append", default=[],
        help=f"also write a table ({', '.join(TABLES)}) or a picture of the rank lists ({', '.join(PICTURES)})",
    )  # fmt: skip
    result.add_argument("-j", "--workers", type=int, default=2, help="threads that decode")
    result.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments or images."""
    return finish(PROG, lambda: _run(parser().parse_args(argv)))


def _run(options: Any) -> None:
    for output in options.output:
        check_suffix("--output", output, (*TABLES, *PICTURES))
        check_target("--output", output)
    for image in options.images:
        if image.is_dir():
            raise ValueError(f"IMAGES: expected images to look for, got the folder {image}; name images in it")
    check_count("-k", options.k)
    check_count("--workers", options.workers)
    import torch

    from ise_fast import ops
    from ise_fast.engine.distributed import choose_device
    from ise_fast.engine.inference import load_model

    model = load_model(options.checkpoint, device=choose_device(options.device))
    queries = model.embed(options.images, workers=options.workers)  # first: they are few
    if options.gallery.is_dir():
        from ise_fast.commands.embed import find_images

        paths = [str(path) for path in find_images([options.gallery], None)[0]]
        _check_found(options.k, paths)
        gallery = model.embed(paths, workers=options.workers)
    else:
        numbers, columns = read_features(options.gallery)
        if "path" not in columns:
            raise ValueError(f"--gallery: {options.gallery} has no column path; `ise-fast embed` writes one")
        paths, gallery = [str(path) for path in columns["path"]], torch.tensor(numbers, dtype=torch.float32)
        if gallery.shape[1] != model.num_features:
            raise ValueError(f"--gallery: expected {model.num_features} numbers an image, got {gallery.shape[1]}")
        _check_found(options.k, paths)
    for output in options.output:
        check_names(output, (*options.images, *paths))
    found = ops.knn(gallery.to(queries.device), options.k, y=queries, metric="cosine")
    lists = [
        [(paths[int(i)], 1 - float(d)) for i, d in zip(indices, distances, strict=True)]
        for indices, distances in zip(found.indices.tolist(), found.distances.tolist(), strict=True)
    ]
    for output in options.output:  # first: the reader of what follows may end
        _write(output, options.images, lists, model.size)
    for query, ranks in zip(options.images, lists, strict=True):
        show(str(query))
        for rank, (path, similarity) in enumerate(ranks, 1):
            show(f"  {rank:3d}  {similarity:6.3f}  {path}")


def _check_found(k: int, gallery: Sequence[str]) -> None:
    if k > len(gallery):
        raise ValueError(f"-k: expected 1 to {len(gallery)} (images in the gallery), got {k}")


def _write(output: Path, queries: Sequence[Path], lists: list[list[tuple[str, float]]], size: tuple[int, int]) -> None:
    if output.suffix.lower() in PICTURES:
        _draw(output, queries, lists, size)
        return
    rows = [
        (str(query), rank, path, similarity)
        for query, ranks in zip(queries, lists, strict=True)
        for rank, (path, similarity) in enumerate(ranks, 1)
    ]
    write_columns(output, dict(zip(("query", "rank", "path", "similarity"), zip(*rows, strict=True), strict=True)))


def _draw(output: Path, queries: Sequence[Path], lists: list[list[tuple[str, float]]], size: tuple[int, int]) -> None:
    """A row a query: the query, a gap, then what was found, the nearest first."""
    from PIL import Image

    from ise_fast.data import read_image
    from ise_fast.data.files import publish

    height, width = size
    gap, step = width // 2, width + 4
    page = Image.new("RGB", (step * (1 + len(lists[0])) + gap, (height + 4) * len(lists)), "white")
    for row, (query, ranks) in enumerate(zip(queries, lists, strict=True)):
        for column, path in enumerate([str(query), *(path for path, _ in ranks)]):
            picture = read_image(Path(path)).resize((width, height))
            page.paste(picture, (column * step + (gap if column else 0), row * (height + 4)))
    kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[output.suffix.lower()]
    with publish(output) as temporary:
        page.save(temporary, format=kind)
