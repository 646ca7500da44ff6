"""report.html: whole in one file, nothing from outside, nothing run from what it shows."""

import base64
import json
import re
from html.parser import HTMLParser

from genkit.training.report import curve, embed, number, table, write_report

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def run_folder(out):
    (out / "samples").mkdir(parents=True)
    (out / "samples" / "step-00000004.png").write_bytes(b"old")
    (out / "samples" / "step-00000008.png").write_bytes(PIXEL)
    lines = [{"step": k, "student/total": 2.0**-k, "student/norm/student": 1.0} for k in range(9)]
    lines += [{"step": 8, "distance": 0.25, "samples/std": 1.0}, {"step": 8, "distance": "inf"}]
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out / "config.json").write_text(json.dumps({"method": "toy", "note": "<script>x</script>"}))
    (out / "metrics.json").write_text(
        json.dumps({"floor": {"fd": 0.5}, "rows": [{"pipeline": "a", "steps": 1, "fd": 1.23456}]})
    )
    (out / "pipeline").mkdir()
    return out


class Balance(HTMLParser):
    """Counts what is opened and closed, and keeps every address."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "path", "polyline"):
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def test_the_report_is_whole_and_self_contained(tmp_path):
    page = write_report(run_folder(tmp_path / "run")).read_text()
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert [each[:22] for each in balance.addresses] == ["data:image/png;base64,"]
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert base64.b64encode(PIXEL).decode() in page and "viewport" in page
    assert "least distance 0.25 at step 8" in page and "1.235" in page and "floor" in page
    assert "from_pretrained" in page and "run/pipeline" in page
    assert "student/total over steps, logarithmic" in page
    assert "norm/student over" not in page and "samples/std over" not in page
    assert len(page) < 20_000


def test_a_run_with_nothing_yet_still_has_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    page = write_report(tmp_path).read_text()
    assert "Configuration" in page and "Curves" not in page


def test_a_collapse_stands_in_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "log.jsonl").write_text('{"step": 3, "collapse": "it broke"}\n')
    assert "<b>it broke</b>" in write_report(tmp_path).read_text()


def test_curves_are_thinned_and_keep_their_end():
    points = [(float(k), float(k)) for k in range(10_000)]
    drawn = curve(points, "x")
    assert drawn.count(",") < 1000 and "last 9999" in drawn
    assert curve([(1, 2.0)], "one").startswith("<figure>")
    assert "logarithmic" not in curve([(0, -1.0), (1, 100.0)], "negative")


def test_a_curve_rises_where_values_rise():
    line = re.search(r'points="([^"]*)"', curve([(0, 0.0), (1, 1.0)], "x"))
    assert line
    (x0, y0), (x1, y1) = (map(float, each.split(",")) for each in line[1].split())
    assert x1 > x0 and y1 < y0


def test_players_are_named_by_the_media_type(tmp_path):
    for name, tag in (("a.mp4", "video"), ("a.wav", "audio")):
        (tmp_path / name).write_bytes(b"abc")
        assert embed(tmp_path / name).startswith(f"<figure><{tag} controls src=")
    (tmp_path / "a.json").write_text("{}")
    assert "base64" not in embed(tmp_path / "a.json")


def test_figures_and_tables():
    assert [number(each) for each in (3, 0.123456, "<b>", True)] == [
        "3",
        "0.1235",
        "&lt;b&gt;",
        "True",
    ]
    assert table([{"a": 1}, {"b": 2}]).count("<td></td>") == 2


def test_a_piece_of_a_page_is_shown_as_it_is(tmp_path):
    (tmp_path / "a.html").write_text("<h3>teacher</h3>")
    assert embed(tmp_path / "a.html") == "<section><h3>teacher</h3></section>"
