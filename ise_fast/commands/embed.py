"""Features of any images: `ise-fast embed IMAGES ... --checkpoint C -o FILE`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ise_fast.commands.command import Parser, check_count, check_suffix, check_target, finish, user_path
from ise_fast.commands.feature_file import SUFFIXES, check_names, write_features
from ise_fast.engine.console import say, show

PROG = "ise-fast embed"


def parser() -> Parser:
    result = Parser(prog=PROG, description="Write the features of images, with their paths, identities and cameras.")
    result.add_argument("images", nargs="+", type=user_path, help="folders, searched at any depth, or image files")
    result.add_argument("--checkpoint", required=True, type=user_path, help="such as logs/NAME/checkpoints/best.pt")
    result.add_argument("-o", "--output", required=True, type=user_path, help=f"file to write: {', '.join(SUFFIXES)}")
    result.add_argument("--identity-pattern", help="regular expression with groups id and camera, as in training")
    result.add_argument("--unreadable", choices=["error", "skip"], default="error", help="images that cannot be read")
    result.add_argument("--batch-size", type=int, default=256, help="images in a batch")
    result.add_argument("-j", "--workers", type=int, default=2, help="threads that decode")
    result.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    result.add_argument("--quiet", action="store_true", help="no progress bar, no line at the end")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments or images."""
    return finish(PROG, lambda: _run(parser().parse_args(argv)))


def _run(options: Any) -> None:
    check_suffix("--output", options.output, SUFFIXES)
    check_target("--output", options.output)
    check_count("--batch-size", options.batch_size)
    check_count("--workers", options.workers)
    from tqdm.auto import tqdm

    from ise_fast.data import open_images
    from ise_fast.engine.distributed import choose_device
    from ise_fast.engine.inference import load_model

    paths, columns = find_images(options.images, options.identity_pattern)
    check_names(options.output, paths)
    model = load_model(options.checkpoint, device=choose_device(options.device))
    on_error: Literal["skip", "raise"] = "skip" if options.unreadable == "skip" else "raise"
    store = open_images(paths, model.size, "none", options.workers, on_error)
    with tqdm(total=len(store), unit="img", disable=options.quiet or None) as bar:
        features = model.embed(store, batch_size=options.batch_size, on_batch=bar.update)
    kept = {name: [values[i] for i in store.kept] for name, values in columns.items()}
    write_features(options.output, features.cpu().numpy(), {"path": [str(p) for p in store.paths], **kept})
    for path, reason in store.skipped:
        say(f"{PROG}: skipped {path}: {reason}")
    if not options.quiet:
        show(f"{options.output}: {len(store)} images, {features.shape[1]} numbers each")


def find_images(places: Sequence[Path], pattern: str | None) -> tuple[list[Path], dict[str, list[int]]]:
    """Images of folders and files, and the columns id and camera if the pattern names them.

    Raises:
        DatasetError: if a folder has no images, or the pattern does not explain one.
    """
    from ise_fast.data import DatasetWarning
    from ise_fast.data.folder import load_folder

    paths: list[Path] = []
    columns: dict[str, list[int]] = {}
    for place in places:
        if not place.is_dir():
            if pattern is not None:
                raise ValueError(f"--identity-pattern: it is searched below folders, {place} is a file")
            paths.append(place)
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DatasetWarning)
            dataset = load_folder(place, pattern=pattern)
        for warning in caught:
            say(f"{PROG}: {warning.message}")
        for split in (dataset.train, dataset.query, dataset.gallery):
            paths += split.paths
            for name, values in (("id", split.ids), ("camera", split.cams)):
                if values is not None:
                    columns.setdefault(name, []).extend(int(value) for value in values)
    return paths, {name: values for name, values in columns.items() if len(values) == len(paths)}
