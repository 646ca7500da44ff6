"""report.html of a run's folder: one file without outside resources, readable on a phone.

Curves of losses and distance, the last samples beside the reference, the comparison table of
metrics.json, how to load the pipeline, and the configuration.
"""

from __future__ import annotations

import base64
import json
import math
import mimetypes
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from genkit.training.checkpoints import write_text
from genkit.training.log import read_log

LARGEST = 8 * 2**20  # bytes of a sample file that is still embedded
POINTS = 240  # of a curve
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 240, 84, 22, 10

STYLE = """
:root{--ink:#1a1a1a;--paper:#fff;--line:#2563eb;--grid:#d4d4d8;--soft:#6b7280}
@media(prefers-color-scheme:dark){
:root{--ink:#e5e5e5;--paper:#171717;--line:#60a5fa;--grid:#3f3f46;--soft:#a1a1aa}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}figure{margin:0 0 1rem}
figcaption,.soft{color:var(--soft);font-size:.875rem}
.curves{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:15px}
figure{overflow-x:auto}figure>:first-child{max-width:100%}
figure>img{image-rendering:pixelated;min-width:36rem}
pre{overflow:auto;background:color-mix(in srgb,var(--grid) 35%,transparent);padding:.75rem;
border-radius:.4rem;font-size:.8125rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;
font-size:.875rem}th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--grid);
white-space:nowrap}th:first-child,td:first-child{text-align:left}
"""


def number(value: Any) -> str:
    """A figure to four digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escape(str(value))
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def curve(points: Sequence[tuple[float, float]], name: str) -> str:
    """An inline SVG of (step, value) points; logarithmic where the values span over 20-fold."""
    every = max(1, math.ceil(len(points) / POINTS))
    kept = [*points[:-1:every], points[-1]]
    values = [value for _, value in kept]
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    bottom, top = (math.log(low), math.log(high)) if log else (low, high)
    first, last = kept[0][0], kept[-1][0]

    def place(step: float, value: float) -> str:
        up = ((math.log(value) if log else value) - bottom) / ((top - bottom) or 1)
        across = (step - first) / ((last - first) or 1)
        x = LEFT + across * (WIDTH - LEFT - 6)
        return f"{x:.1f},{HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP):.1f}"

    line = " ".join(place(*point) for point in kept)
    floor = HEIGHT - BOTTOM
    scale = ", logarithmic" if log else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">'
        f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH}" fill="none" stroke="var(--grid)"/>'
        f'<polyline points="{line}" fill="none" stroke="var(--line)" stroke-width="2"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{first:g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{last:g}</text></svg>'
        f"<figcaption>{escape(name)} over steps{scale}; last {values[-1]:.4g}</figcaption></figure>"
    )


def _series(lines: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if isinstance(value, (int, float)) and key not in ("step", "turn", "best"):
                found.setdefault(key, []).append((line["step"], value))
    return found


def _curves(lines: list[dict[str, Any]]) -> str:
    series = _series(lines)
    shown = [key for key in series if key == "distance"]
    losses = [key for key in series if "/" in key and not key.startswith("samples/")]
    shown += [key for key in losses if "/norm/" not in key]
    drawn = "".join(curve(series[key], key) for key in shown)
    return f'<h2>Curves</h2><div class="curves">{drawn}</div>' if drawn else ""


def embed(file: Path) -> str:
    """A sample file inside the page: a picture, or a player named by the file's own media type."""
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    family, caption = kind.split("/")[0], f"<figcaption>{escape(file.stem)}</figcaption>"
    if kind == "text/html" and file.stat().st_size <= LARGEST:
        # A piece of a page, which whoever rendered the samples has made whole.
        return f"<section>{file.read_text(encoding='utf-8')}</section>"
    if family in ("application", "text"):
        return f"<p class=soft>{escape(file.name)}</p>"
    if file.stat().st_size > LARGEST:
        return f"<p class=soft>{escape(file.name)} is too large to stand here</p>"
    source = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    if family == "image":
        return f'<figure><img src="{source}" alt="{escape(file.stem)}">{caption}</figure>'
    return f'<figure><{family} controls src="{source}"></{family}>{caption}</figure>'


def _samples(out: Path) -> str:
    files = sorted(each for each in (out / "samples").glob("step-*") if each.is_file())
    if not files:
        return ""
    last = [each for each in files if each.stem[:13] == files[-1].stem[:13]]
    return "<h2>Samples</h2>" + "".join(embed(each) for each in last)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table, columns in the order in which they appear."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{number(row.get(name, ''))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _metrics(out: Path) -> str:
    file = out / "metrics.json"
    if not file.exists():
        return ""
    metrics = json.loads(file.read_text())
    rows = list(metrics.get("rows", []))
    if "floor" in metrics:
        rows.append({"pipeline": "floor (real against real)", **metrics["floor"]})
    return "<h2>Comparison</h2>" + table(rows) if rows else ""


def _loading(out: Path) -> str:
    if not (out / "pipeline").exists():
        return ""
    here = out.resolve()
    name = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else Path(out.name)
    code = (
        f'import genkit\n\npipeline = genkit.Pipeline.from_pretrained("{name.as_posix()}/pipeline")'
    )
    return f"<h2>Use it</h2><pre>{escape(code)}</pre>"


def _summary(out: Path, lines: list[dict[str, Any]]) -> str:
    if not lines:
        return ""
    text = f"{lines[-1]['step']} steps"
    distances = [(line["distance"], line["step"]) for line in lines if "distance" in line]
    distances = [(value, step) for value, step in distances if isinstance(value, (int, float))]
    if distances:
        value, step = min(distances)
        text += f"; least distance {value:.4g} at step {step}, which is the student delivered"
    ends = [line["collapse"] for line in lines if "collapse" in line]
    return f"<p>{escape(text)}.</p>" + "".join(f"<p><b>{escape(end)}</b></p>" for end in ends)


def write_report(out: Path) -> Path:
    """Write `report.html` from what the run's folder holds now; returns its path."""
    lines = read_log(out)
    config = json.loads((out / "config.json").read_text())
    title = escape(
        f"{config['method'] if isinstance(config.get('method'), str) else ''} {out.name}"
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        + _summary(out, lines)
        + _samples(out)
        + _metrics(out)
        + _curves(lines)
        + _loading(out)
        + "<h2>Configuration</h2><details><summary>config.json</summary>"
        + f"<pre>{escape(json.dumps(config, indent=2))}</pre></details></html>\n"
    )
    file = out / "report.html"
    write_text(file, page)
    return file
