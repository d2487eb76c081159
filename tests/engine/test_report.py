"""report.html from the folder of a run: complete, free of outside resources, and clear about what is missing."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import ise_fast.engine
from ise_fast.engine.report import read_run, write_report
from ise_fast.engine.report_compare import differing, write_comparison
from ise_fast.engine.report_data import ReportData
from ise_fast.engine.report_rows import camera_table, duration, latex_row, purity, results
from ise_fast.report import main

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from report_run import epoch, samples, write_run

ENGINE = Path(ise_fast.engine.__file__).parent


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "a <run> & more")


def text_of(page):
    return " ".join(re.sub(r"<style>.*?</style>|<script.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL).split())


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
        "ARI 0.51",
        "recall 0.47",
        "Figures of the method",
        "median 4",
        "AP 12.3 %",
        "rank-1 60.0%",
        "Worst: 25.0 % for camera 1 in camera 2",
        "1 of 2 clusters hold more than one identity; 75.0 % of the clustered images",
        "2 of others",
        "3 to find 2 removed",
    ):
        assert label in text, label
    for word in ("a &lt;run&gt; &amp; more", "batch size", "cpu count"):
        assert word in page, word
    assert page.count('<figure class="right"') == 3 + 2
    assert page.count('<figure class="wrong"') == 2 + 1
    assert page.count('<figure class="query"') == 2
    assert page.count("<figure><img") == 2  # outliers
    assert "Embedding by identity" in page
    assert "Embedding by camera" in page


def test_page_needs_nothing_else(run):
    page = write_report(run).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert page.count("<script") == 2  # the pictures of the points, and the script of the page
    assert len((ENGINE / "report_script.js.j2").read_text().splitlines()) <= 100
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)  # names of XML alone
    assert "@import" not in page
    assert "url(http" not in page
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 11
    for figure in figures:
        root = ET.fromstring(figure)
        assert root.get("role") == "img"
        assert root.findtext("{*}title") == root.get("aria-label")
        assert len(root.get("aria-label")) > 15
    assert not re.findall(r'<img(?![^>]*alt="[^"])[^>]*>', page)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(dark):
    light, night = re.findall(r":root \{(.*?)\}", (ENGINE / "report_style.css.j2").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", night if dark else light))
    assert math.isclose(contrast("#000000", "#ffffff"), 21)
    for text in ("ink", "soft", "faint", "blue", "teal", "orange", "pink", "right", "wrong"):
        for ground in ("card", "page"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_figures_take_the_colours_of_the_page(run):
    from ise_fast.engine.report_figures import VARIABLES

    page = write_report(run).read_text()
    figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not [colour for colour in VARIABLES if colour in figures]
    assert all(variable in figures for variable in VARIABLES.values() if variable != "currentColor")


def test_latex():
    row = latex_row("ISE_1 & 50% ~", epoch(1))
    assert row == r"ISE\_1 \& 50\% \textasciitilde{} & 30.0 & 30.0 & 40.0 & 50.0 & 10.0 \\"


def test_best_and_last_epoch_are_one_row():
    rows = results({"untrained": epoch(0), "best": epoch(2), "last": epoch(2)}, "run")
    assert [row["name"] for row in rows] == ["untrained", "last and best"]
    rows = results({"untrained": None, "best": epoch(1), "last": epoch(2)}, "run")
    assert [row["name"] for row in rows] == ["best", "last"]


def test_purity_without_identities():
    assert purity(samples().clusters._replace(foreign=np.array([-1, -1]))) is None
    assert purity(samples().clusters) == {"mixed": 1, "clusters": 2, "share": 0.75}


def test_cameras():
    table = camera_table(samples().statistics)
    assert table["cameras"] == [1, 2]
    assert table["rows"] == [[None, 0.25], [0.75, None]]
    assert camera_table(samples().statistics._replace(cameras=np.array([-1]))) is None


def test_two_runs(run, tmp_path, capsys):
    other = write_run(tmp_path / "other", method="cluster-contrast", eps=0.5, logs_dir="elsewhere")
    data = samples()
    changed = data.statistics._replace(
        names=np.array(["c.jpg", "x.jpg", "a.jpg"]), ap=np.array([0.25, 1.0, 0.625], dtype=np.float32)
    )
    data._replace(statistics=changed).save(other / "report.npz")
    (other / "metrics.json").write_text(json.dumps({"untrained": None, "best": epoch(2), "last": epoch(2, mAP=0.45)}))
    assert main([str(run), str(other)]) == 0
    page = run / "compare-other.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = text_of(page.read_text())
    assert "B - A +5.0 +0.0" in text
    assert "method ise cluster-contrast" in text
    assert "eps not set 0.5" in text
    assert "elsewhere" not in text
    assert "2 queries that both runs rated: 1 are better in B, 1 worse." in text
    assert "c.jpg 50.0 25.0 -25.0" in text
    assert "a.jpg 12.3 62.5 +50.2" in text
    assert page.read_text().count("<svg") == 6
    assert "<img" not in page.read_text()
    assert write_comparison(run, run, tmp_path / "same.html").read_text().count("None: the two runs differ") == 1


def test_settings_that_differ():
    assert differing({"a": 1, "b": [1, 2], "workers": 2}, {"a": 1, "b": [1, 3], "workers": 4, "c": None}) == [
        ("b", "1 2", "1 3"),
        ("c", "not set", "–"),  # noqa: RUF001
    ]


def test_same_run_same_page(run, tmp_path):
    first, second = (write_report(run, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert first == second
    assert not list(tmp_path.glob("*.tmp"))


def test_stopped_run_without_samples(run):
    (run / "report.npz").unlink()
    (run / "environment.json").unlink()
    page = write_report(run).read_text()
    assert "<h2>Rank lists" not in page
    assert "<h2>Inside the clusters" not in page
    assert page.count("<svg") == 6


def test_baseline_without_test_split(run):
    quality = ("mAP", "rank1", "rank5", "rank10", "mINP", "contrastive", "label_preserving", "degree")
    record = {key: value for key, value in epoch(1).items() if key not in quality}
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    ReportData(clusters=samples().clusters).save(run / "report.npz")
    page = write_report(run).read_text()
    assert "Retrieval on the test split" not in page
    assert "loss 2.50" in text_of(page)
    assert "<h2>Inside the clusters" in page


def test_figures_of_a_method(run):
    record = {key: value for key, value in epoch(1).items() if key not in ("contrastive", "label_preserving", "degree")}
    records = [{**record, "epoch": n, "intra": 1.25, "inter": 0.5, "threshold": 0.75 / n, "steps": n} for n in (1, 2)]
    del records[1]["threshold"]  # an epoch that went on with older labels
    records[1]["codelength"] = 7.5
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    config = (run / "config.yaml").read_text().replace("method: ise", "method: cap").replace("iters: 5", "iters: 0")
    (run / "config.yaml").write_text(config)
    page = write_report(run).read_text()
    assert "CAP on synthetic · small, 2 passes of 8 images" in text_of(page)
    assert "intra 1.25" in text_of(page)
    assert "inter 0.50" in text_of(page)
    titles = re.findall(r"<title>(.*?)</title>", page)
    assert "steps, codelength over the epochs" in titles
    assert "agreement of pseudo labels and identities" in titles
    for line in records:
        del line["quality"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    assert "Labels and identities" not in write_report(run).read_text()


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
