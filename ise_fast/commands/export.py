"""A trained network for other runtimes: `ise-fast export CHECKPOINT -o model.onnx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ise_fast.commands.command import Parser, check_suffix, check_target, finish, user_path

PROG = "ise-fast export"
SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4  # largest difference of an embedding's number; unit rows


def parser() -> Parser:
    result = Parser(
        prog=PROG,
        description="Export a network with its normalisation inside: float32 images [B, 3, h, w] in [0, 1] (RGB, "
        "resized bicubically) to unit rows [B, d], for any B. The file is run and compared before it is kept.",
    )
    result.add_argument("checkpoint", type=user_path, help="such as logs/NAME/checkpoints/best.pt")
    result.add_argument("-o", "--output", required=True, type=user_path, help="model.onnx, or model.pt2 (torch.export)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments or a package that is missing."""
    return finish(PROG, lambda: _run(parser().parse_args(argv)))


def _run(options: Any) -> None:
    check_suffix("--output", options.output, SUFFIXES)
    check_target("--output", options.output)
    import torch

    from ise_fast.data.files import publish
    from ise_fast.engine.inference import load_model

    model = load_model(options.checkpoint)
    write = _write_onnx if options.output.suffix.lower() == ".onnx" else _write_program
    images = torch.rand(3, 3, *model.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), publish(options.output) as temporary:
        run = write(model, images[:2], temporary)
        for batch in (images, images[:1]):
            difference = float((run(batch) - model(batch)).abs().max())
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"{options.output}: it differs from the network by {difference:.1e}; nothing was written"
                )
    height, width = model.size
    print(f"{options.output}: images [B, 3, {height}, {width}] in [0, 1] to [B, {model.num_features}]; checked")


def _write_program(model: Any, images: Any, path: Path) -> Callable[[Any], Any]:
    import torch

    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(model: Any, images: Any, path: Path) -> Callable[[Any], Any]:
    import torch

    try:
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise ImportError(f"ONNX needs the package {error.name}: pip install onnx onnxscript") from error
    torch.onnx.export(
        model, (images,), str(path), input_names=["images"], output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    runtime: Any = ReferenceEvaluator(onnx.load(path))
    return lambda batch: torch.from_numpy(runtime.run(None, {"images": batch.numpy()})[0])
