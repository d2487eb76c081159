"""report.html from the folder of a run: complete, free of outside resources, and clear about what is missing."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ise_fast.engine.report import duration, read_run, write_report
from ise_fast.engine.report_data import Clusters, EmbeddingPicture, RankLists, ReportData
from ise_fast.report import main

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
yaml = pytest.importorskip("yaml")

CONFIG = {
    "method": "ise",
    "dataset": "synthetic",
    "arch": "small",
    "epochs": 2,
    "iters": 5,
    "batch_size": 8,
    "resume": None,
}


def epoch(number, **values):
    quality = {"mAP": 0.2 + 0.1 * number, "rank1": 0.3, "rank5": 0.4, "rank10": 0.5, "mINP": 0.1}
    if number == 0:
        return {"epoch": 0, **quality}
    record = {"epoch": number, "clusters": 10 + number, "outliers": 20, "smallest": 4, "largest": 31, "lr": 1e-3}
    record |= {"loss": 2.5, "contrastive": 2.0, "label_preserving": 0.7531, "degree": 0.1}
    return {**record, "seconds": {"extract": 1.0, "train": 3.0}, **quality, **values}


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 8, 4, 3), dtype=np.uint8)


def samples():
    lists = RankLists(
        query_images=pixels(2), query_ids=np.array([7, 8]), query_cams=np.array([0, 1]), ap=np.array([0.123, 1.0]),
        matches=np.array([3, 1]), removed=np.array([2, 0]), images=pixels(2, 3),
        ids=np.array([[7, 9, 7], [8, 9, 0]]), cams=np.array([[1, 1, 2], [0, 0, 0]]),
        similarity=np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]), shown=np.array([3, 2]),
    )  # fmt: skip
    points = np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32)
    picture = EmbeddingPicture(points, np.repeat([1, 2, 3], 4), np.tile([0, 1], 6), np.array(True))
    clusters = Clusters(np.array([5, 3]), np.array(4), np.array([0, -1]), pixels(2, 3), np.array([3, 2]))
    return ReportData(lists, picture, clusters)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a <run> & more"
    folder.mkdir()
    history = [epoch(0), epoch(1, mAP=0.55), epoch(2)]
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "environment.json").write_text(
        json.dumps({"started": "2026-01-02T03:04", "torch": "2.11", "cpu": {"count": 2}})
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    samples().save(folder / "report.npz")
    return folder


def text_of(page):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_page_holds_the_run(run):
    page = write_report(run).read_text()
    text = text_of(page)
    for figure in ("40.0 %", "untrained 20.0 %", "clusters 12", "20 outliers", "8.0 s", "4.0 s an epoch"):
        assert figure in text, figure
    assert re.search(r"best\s+1\s+55\.0", text), "best epoch"
    assert re.search(r"last\s+2\s+40\.0", text), "last epoch"
    for label in (
        "rank-1 30.0%",
        "outliers 20",
        "label preserving 0.75",
        "median 4",
        "AP 12.3 %",
        "3 to find 2 removed",
    ):
        assert label in text, label
    for word in ("a &lt;run&gt; &amp; more", "batch size", "cpu count"):
        assert word in page, word
    assert page.count('<figure class="right"') == 3
    assert page.count('<figure class="wrong"') == 2
    assert page.count('<figure class="query"') == 2
    assert page.count("<figure><img") == 5
    assert "Embedding by identity" in page
    assert "Embedding by camera" in page


def test_page_needs_nothing_else(run):
    page = write_report(run).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(http" not in page
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 5
    for figure in figures:
        ET.fromstring(figure)


def test_same_run_same_page(run, tmp_path):
    first, second = (write_report(run, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert first == second
    assert not list(tmp_path.glob("*.tmp"))


def test_stopped_run_without_samples(run):
    (run / "report.npz").unlink()
    (run / "environment.json").unlink()
    page = write_report(run).read_text()
    assert "Rank lists" not in page
    assert "Inside the clusters" not in page
    assert page.count("<svg") == 4


def test_baseline_without_test_split(run):
    quality = ("mAP", "rank1", "rank5", "rank10", "mINP", "contrastive", "label_preserving", "degree")
    record = {key: value for key, value in epoch(1).items() if key not in quality}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    ReportData(clusters=samples().clusters).save(run / "report.npz")
    page = write_report(run).read_text()
    assert "Retrieval on the test split" not in page
    assert "loss 2.50" in text_of(page)
    assert "Inside the clusters" in page


def test_summary_decides_the_best_epoch(run):
    (run / "metrics.json").write_text(json.dumps({"best": epoch(2), "last": epoch(2), "note": "chosen so"}))
    _, _, _, summary = read_run(run)
    assert summary["best"]["epoch"] == 2
    assert "Chosen so." in write_report(run).read_text()


def test_not_a_run(run, tmp_path, capsys):
    with pytest.raises(ValueError, match="expected the folder of a run"):
        write_report(tmp_path)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="no epoch is finished"):
        write_report(run)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "clus')
    with pytest.raises(ValueError, match="a file of the run is damaged"):
        write_report(run)
    assert not (run / "report.html").exists()
    assert main([str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "expected the folder of a run" in error


def test_command_line(run, tmp_path, capsys):
    assert main([str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1:00 min"), (187, "3:07 min"), (3599, "59:59 min"), (9840, "2:44 h")],
)
def test_duration(seconds, shown):
    assert " ".join(duration(seconds)) == shown
