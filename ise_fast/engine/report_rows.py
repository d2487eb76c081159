"""The parts of the page that are not figures, as plain values for the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ise_fast.engine.report_data import NO_CAMERA, NO_IDENTITY, Clusters, RankLists, Statistics

Record = Mapping[str, Any]
MEASURES = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mINP": "mINP"}


def cards(history: Sequence[Record], clusters: Clusters | None) -> list[dict[str, str]]:
    """The headline numbers: name, value, unit and a line of context."""
    result = []
    rated = [record for record in history if "mAP" in record]
    if rated:
        first, last = rated[0], rated[-1]
        for key in ("mAP", "rank1", "mINP"):
            context = f"untrained {100 * first[key]:.1f} %" if first["epoch"] == 0 else f"epoch {last['epoch']}"
            result.append({"name": MEASURES[key], "value": f"{100 * last[key]:.1f}", "unit": "%", "context": context})
    trained = [record for record in history if "clusters" in record]
    if trained:
        last = trained[-1]
        context = f"{last['smallest']} to {last['largest']} images each, {last['outliers']:,} outliers"
        result.append({"name": "clusters", "value": f"{last['clusters']:,}", "unit": "", "context": context})
        seconds = sum(sum(record["seconds"].values()) for record in trained)
        value, unit = duration(seconds)
        context = f"{seconds / len(trained):.1f} s an epoch, {len(trained)} epochs"
        result.append({"name": "time", "value": value, "unit": unit, "context": context})
    return result


def duration(seconds: float) -> tuple[str, str]:
    """A length of time as value and unit: ("45.2", "s"), ("3:07", "min"), ("2:44", "h")."""
    if seconds < 60:
        return f"{seconds:.1f}", "s"
    high, low, unit = (seconds, 60, "min") if seconds < 3600 else (seconds / 60, 60, "h")
    high, low = divmod(round(high), low)
    return f"{high}:{low:02d}", unit


def readable(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, one level deep."""
    lines: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines.update({f"{key} {inner}": text for inner, text in readable(value).items()})
        else:
            text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            lines[key.replace("_", " ")] = "–" if value is None else text  # noqa: RUF001
    return lines


def results(summary: Mapping[str, Any], run: str) -> list[dict[str, Any]]:
    """Untrained network, best and last epoch; one row where best and last are the same."""
    rows = []
    for name in ("untrained", "best", "last"):
        record = summary.get(name)
        if record is not None and "mAP" in record:
            rows.append({"name": name, "epoch": record["epoch"], "record": record, "latex": latex_row(run, record)})
    if len(rows) > 1 and rows[-1]["epoch"] == rows[-2]["epoch"]:
        rows.pop(-2)
        rows[-1]["name"] = "last and best"
    return rows


def latex_row(name: str, record: Record) -> str:
    r"""`name & mAP & rank-1 & rank-5 & rank-10 & mINP \\`, in per cent."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special.update({letter: "\\" + letter for letter in "&%$#_{}"})
    name = "".join(special.get(letter, letter) for letter in name)
    return " & ".join([name, *(f"{100 * record[key]:.1f}" for key in MEASURES)]) + r" \\"


def stages(history: Sequence[Record]) -> list[dict[str, Any]]:
    """Each timed stage with its colour, seconds over all epochs and share of the total."""
    from ise_fast.engine.report_figures import stage_colours

    colours = stage_colours(history)
    totals = {name: sum(record.get("seconds", {}).get(name, 0.0) for record in history) for name in colours}
    whole = sum(totals.values()) or 1.0
    return [
        {"name": name, "colour": colour, "seconds": totals[name], "share": totals[name] / whole}
        for name, colour in colours.items()
    ]


def rank_lists(lists: RankLists) -> list[dict[str, Any]]:
    """Queries with their lists, the worst first."""
    from ise_fast.engine.report_figures import jpeg_address

    def shown(image: Any, identity: Any, cam: Any) -> dict[str, Any]:
        return {"image": jpeg_address(image), "id": int(identity), "camera": _camera(cam)}

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
        for q in lists.ap.argsort(kind="stable")
    ]


def cluster_rows(clusters: Clusters) -> list[dict[str, Any]]:
    """Clusters with their pictures; `right` of a picture is None where identities are not known."""
    from ise_fast.engine.report_figures import jpeg_address

    rows = []
    for row, number in enumerate(clusters.examples):
        ids = clusters.ids[row, : int(clusters.shown[row])]
        known = number >= 0 and clusters.foreign[number] >= 0
        most = max(set(ids.tolist()), key=ids.tolist().count) if known and len(ids) else None
        images = [
            {
                "image": jpeg_address(clusters.images[row, column]),
                "id": None if identity == NO_IDENTITY else int(identity),
                "right": None if most is None else bool(identity == most),
            }
            for column, identity in enumerate(ids)
        ]
        size = int(clusters.sizes[number]) if number >= 0 else int(clusters.outliers)
        foreign = int(clusters.foreign[number]) if known else None
        rows.append({"number": int(number), "size": size, "foreign": foreign, "images": images})
    return rows


def purity(clusters: Clusters) -> dict[str, Any] | None:
    """How many clusters hold several identities, and the share of clustered images that are in their own."""
    known = clusters.foreign >= 0
    if not known.any():
        return None
    images = int(clusters.sizes[known].sum())
    mixed = int((clusters.foreign[known] > 0).sum())
    return {"mixed": mixed, "clusters": int(known.sum()), "share": 1 - int(clusters.foreign[known].sum()) / images}


def camera_table(statistics: Statistics) -> dict[str, Any] | None:
    """Cameras against cameras, and which pair fails most; None with fewer than two cameras."""
    if len(statistics.cameras) < 2:
        return None
    values = statistics.camera_ap
    cells = [[None if math.isnan(value) else float(value) for value in row] for row in values.tolist()]
    names = [_camera(cam) for cam in statistics.cameras]
    places = [(value, i, j) for i, row in enumerate(cells) for j, value in enumerate(row)]
    known = [(value, names[i], names[j]) for value, i, j in places if value is not None]
    if not known:
        return None
    return {"cameras": names, "rows": cells, "worst": min(known)}


def _camera(cam: Any) -> int | None:
    """Cameras are stored from 0 and named from 1."""
    return None if cam == NO_CAMERA else int(cam) + 1
