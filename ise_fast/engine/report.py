"""report.html: a run on one page that needs no other file; made from the folder of the run alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ise_fast.data.files import publish
from ise_fast.engine.report_data import NO_CAMERA, Clusters, EmbeddingPicture, RankLists, ReportData

Record = Mapping[str, Any]
DATA, PAGE = "report.npz", "report.html"


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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    config, environment, history, summary = read_run(folder)
    data = ReportData.load(folder / DATA) if (folder / DATA).exists() else ReportData()
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html.j2").render(
        title=folder.resolve().name,
        config=config,
        method=_title(str(config.get("method", ""))),
        started=str(environment.get("started", ""))[:10],
        settings=_readable(config),
        environment=_readable(environment),
        history=history,
        cards=_cards(history, data.clusters),
        results=_results(summary),
        note=summary.get("note"),
        figures=_figures(history, data),
        stages=_stages(history),
        rank_lists=_rank_lists(data.rank_lists) if data.rank_lists else [],
        clusters=_cluster_rows(data.clusters) if data.clusters else [],
    )
    output = output or folder / PAGE
    with publish(output) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files need not be UTF-8
    return output


def _title(method: str) -> str:
    from ise_fast.methods import METHODS

    return METHODS[method].title if method in METHODS else method


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


def _cards(history: Sequence[Record], clusters: Clusters | None) -> list[dict[str, str]]:
    """The headline numbers: name, value, unit and a line of context."""
    cards = []
    rated = [record for record in history if "mAP" in record]
    if rated:
        first, last = rated[0], rated[-1]
        for key, name in (("mAP", "mAP"), ("rank1", "rank-1"), ("mINP", "mINP")):
            context = f"untrained {100 * first[key]:.1f} %" if first["epoch"] == 0 else f"epoch {last['epoch']}"
            cards.append({"name": name, "value": f"{100 * last[key]:.1f}", "unit": "%", "context": context})
    trained = [record for record in history if "clusters" in record]
    if trained:
        last = trained[-1]
        context = f"{last['smallest']} to {last['largest']} images each, {last['outliers']:,} outliers"
        cards.append({"name": "clusters", "value": f"{last['clusters']:,}", "unit": "", "context": context})
        seconds = sum(sum(record["seconds"].values()) for record in trained)
        value, unit = duration(seconds)
        context = f"{seconds / len(trained):.1f} s an epoch, {len(trained)} epochs"
        cards.append({"name": "time", "value": value, "unit": unit, "context": context})
    return cards


def duration(seconds: float) -> tuple[str, str]:
    """A length of time as value and unit: ("45.2", "s"), ("3:07", "min"), ("2:44", "h")."""
    if seconds < 60:
        return f"{seconds:.1f}", "s"
    high, low, unit = (seconds, 60, "min") if seconds < 3600 else (seconds / 60, 60, "h")
    high, low = divmod(round(high), low)
    return f"{high}:{low:02d}", unit


def _readable(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, one level deep."""
    lines: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines.update({f"{key} {inner}": text for inner, text in _readable(value).items()})
        else:
            text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            lines[key.replace("_", " ")] = "–" if value is None else text  # noqa: RUF001
    return lines


def _results(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in ("untrained", "best", "last"):
        record = summary.get(name)
        if record is not None and "mAP" in record:
            rows.append({"name": name, "epoch": record["epoch"], "record": record})
    return rows


def _figures(history: Sequence[Record], data: ReportData) -> dict[str, Any]:
    from markupsafe import Markup

    from ise_fast.engine import report_figures as draw

    trained = any("clusters" in record for record in history)
    figures: dict[str, Any] = {}
    if any("mAP" in record for record in history):
        figures["quality"] = Markup(draw.quality(history))
    if trained:
        figures["pseudo_labels"] = Markup(draw.pseudo_labels(history))
        figures["losses"] = Markup(draw.losses(history))
        figures["times"] = Markup(draw.stage_times(history))
    if data.clusters is not None and len(data.clusters.sizes):
        figures["sizes"] = Markup(draw.cluster_sizes(data.clusters.sizes))
    if data.embedding is not None:
        figures["embedding"] = _embedding(data.embedding)
    return figures


def _embedding(picture: EmbeddingPicture) -> dict[str, Any]:
    from ise_fast.engine import report_figures as draw

    kind = "identity" if picture.of_test_images else "cluster"
    panels = [{"by": kind, "image": draw.embedding(picture, "group"), "count": len(set(picture.groups.tolist()))}]
    if (picture.cams != NO_CAMERA).any():
        cameras = len(set(picture.cams.tolist()))
        panels.append({"by": "camera", "image": draw.embedding(picture, "camera"), "count": cameras})
    return {"panels": panels, "points": len(picture.points), "of": "test" if picture.of_test_images else "training"}


def _stages(history: Sequence[Record]) -> list[dict[str, Any]]:
    """Each timed stage with its colour, seconds over all epochs and share of the total."""
    from ise_fast.engine.report_figures import stage_colours

    totals = {
        name: sum(record.get("seconds", {}).get(name, 0.0) for record in history) for name in stage_colours(history)
    }
    whole = sum(totals.values()) or 1.0
    return [
        {"name": name, "colour": colour, "seconds": totals[name], "share": totals[name] / whole}
        for name, colour in stage_colours(history).items()
    ]


def _rank_lists(lists: RankLists) -> list[dict[str, Any]]:
    from ise_fast.engine.report_figures import jpeg_address

    def shown(image: Any, identity: Any, cam: Any) -> dict[str, Any]:
        camera = None if cam == NO_CAMERA else int(cam) + 1  # cameras are stored from 0 and named from 1
        return {"image": jpeg_address(image), "id": int(identity), "camera": camera}

    return [
        {
            "query": shown(lists.query_images[q], lists.query_ids[q], lists.query_cams[q]),
            "ap": float(lists.ap[q]),
            "matches": int(lists.matches[q]),
            "removed": int(lists.removed[q]),
            "gallery": [
                {
                    **shown(lists.images[q, r], lists.ids[q, r], lists.cams[q, r]),
                    "right": bool(lists.ids[q, r] == lists.query_ids[q]),
                    "similarity": float(lists.similarity[q, r]),
                }
                for r in range(int(lists.shown[q]))
            ],
        }
        for q in (-lists.ap).argsort(kind="stable")  # the best first
    ]


def _cluster_rows(clusters: Clusters) -> list[dict[str, Any]]:
    from ise_fast.engine.report_figures import jpeg_address

    return [
        {
            "number": int(number),
            "size": int(clusters.sizes[number]) if number >= 0 else int(clusters.outliers),
            "images": [jpeg_address(clusters.images[row, column]) for column in range(int(clusters.shown[row]))],
        }
        for row, number in enumerate(clusters.examples)
    ]
