"""report.html: a run on one page that needs no other file; made from the folder of the run alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ise_fast.data.files import publish
from ise_fast.engine import report_rows as rows
from ise_fast.engine.report_data import NO_CAMERA, EmbeddingPicture, ReportData

Record = Mapping[str, Any]
DATA, PAGE = "report.npz", "report.html"


class Run(NamedTuple):
    """The files of a run."""

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[Record]  # a record per epoch
    summary: dict[str, Any]
    data: ReportData


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        folder: of the run: config.yaml, metrics.jsonl, environment.json and, for pictures, report.npz.
        output: the page; folder / report.html if left out.

    Returns:
        The path of the page.

    Raises:
        ValueError: if `folder` holds no run, or a file of it is damaged.
        OSError: if the page cannot be written.
    """
    run = open_run(folder)
    data, history = run.data, run.history
    page = render(
        "report.html.j2",
        title=run.name,
        config=run.config,
        method=_title(str(run.config.get("method", ""))),
        started=str(run.environment.get("started", ""))[:10],
        settings=rows.readable(run.config),
        environment=rows.readable(run.environment),
        history=history,
        cards=rows.cards(history, data.clusters),
        results=rows.results(run.summary, run.name),
        note=run.summary.get("note"),
        figures=_figures(history, data, str(run.config.get("method", ""))),
        stages=rows.stages(history),
        cameras=rows.camera_table(data.statistics) if data.statistics else None,
        embedding=_embedding(data.embedding) if data.embedding else None,
        rank_lists=rows.rank_lists(data.rank_lists) if data.rank_lists else [],
        clusters=rows.cluster_rows(data.clusters) if data.clusters else [],
        purity=rows.purity(data.clusters) if data.clusters else None,
    )
    return write_page(page, output or folder / PAGE)


def _title(method: str) -> str:
    from ise_fast.methods import METHODS

    return METHODS[method].title if method in METHODS else method


def render(template: str, **values: Any) -> str:
    """The text of a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(**values)


def write_page(page: str, path: Path) -> Path:
    """Write a page whole or not at all."""
    with publish(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files need not be UTF-8
    return path


def open_run(folder: Path) -> Run:
    """Everything in the folder of a run that a page shows.

    Raises:
        ValueError: if `folder` holds no run, or a file of it is damaged.
    """
    config, environment, history, summary = read_run(folder)
    data = ReportData.load(folder / DATA) if (folder / DATA).exists() else ReportData()
    return Run(folder.resolve().name, config, environment, history, summary, data)


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[Record], dict[str, Any]]:
    """Settings, environment, a record per epoch, and the summary of a run.

    A run that was stopped has no summary; it is then made from the epochs.

    Raises:
        ValueError: if `folder` holds no run, or a file of it is damaged.
    """
    import yaml

    if not (folder / "metrics.jsonl").is_file() or not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: expected the folder of a run, with config.yaml and metrics.jsonl")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        environment, summary = (
            json.loads((folder / name).read_text()) if (folder / name).exists() else {}
            for name in ("environment.json", "metrics.json")
        )
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder}: a file of the run is damaged: {error}") from error
    if not history:
        raise ValueError(f"{folder}: no epoch is finished yet, so there is nothing to report")
    rated = [record for record in history if "mAP" in record]
    if not summary and rated:
        summary = {"best": max(rated, key=lambda record: record["mAP"]), "last": rated[-1]}
        summary["untrained"] = rated[0] if rated[0]["epoch"] == 0 else None
    return config, environment, history, summary


def _figures(history: Sequence[Record], data: ReportData, method: str) -> dict[str, Any]:
    from markupsafe import Markup

    from ise_fast.engine import report_figures as draw
    from ise_fast.engine import report_method

    trained = any("clusters" in record for record in history)
    figures: dict[str, Any] = {}
    if any("mAP" in record for record in history):
        figures["quality"] = Markup(draw.quality(history))
    if trained:
        figures["pseudo_labels"] = Markup(draw.pseudo_labels(history))
        figures["losses"] = Markup(report_method.losses(history, method))
        figures["times"] = Markup(draw.stage_times(history))
    drawn = {"agreement": report_method.agreement(history), "own": report_method.own_figures(history, method)}
    figures.update({name: Markup(text) for name, text in drawn.items() if text is not None})
    if data.clusters is not None and len(data.clusters.sizes):
        figures["sizes"] = Markup(draw.cluster_sizes(data.clusters.sizes))
    if data.statistics is not None:
        figures["cmc"] = Markup(draw.cmc(data.statistics.cmc))
        figures["distances"] = Markup(draw.distances(data.statistics))
    return figures


def _embedding(picture: EmbeddingPicture) -> dict[str, Any]:
    from markupsafe import Markup

    from ise_fast.engine.report_scatter import scatter, sprite

    kinds = ["group", "camera"] if (picture.cams != NO_CAMERA).any() else ["group"]
    names = {"group": "identity" if picture.of_test_images else "cluster", "camera": "camera"}
    panels = []
    for kind in kinds:
        panel = scatter(picture, kind)
        panels.append({**panel, "svg": Markup(panel["svg"]), "by": names[kind]})
    points, of = len(picture.points), "test" if picture.of_test_images else "training"
    return {"panels": panels, "points": points, "of": of, "sprite": sprite(picture.images)}
