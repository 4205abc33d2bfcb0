"""A report as one HTML file that needs nothing from elsewhere: figures, histogram, distributions, options, errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from tests.ghz.durations import show

_STYLE = """
:root { color-scheme: light dark; --bar: #4477aa; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1.5rem .2rem 0; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.bar { width: 30rem; } td.bar div { background: var(--bar); height: 1rem; }
pre { overflow: auto; padding: 1rem; border: 1px solid var(--line); }
"""


def render(report: dict[str, Any]) -> str:
    """The whole page. Everything that is not ours is escaped."""
    title = escape(report.get("name") or report["options"]["call"])
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>ghz: {title}</title><style>{_STYLE}</style></head><body>',
        f"<h1>{title}</h1><p>{escape(report['date'])}, ended: {escape(report['endReason'])}</p>",
        "<h2>Summary</h2>",
        _table(
            [
                ("Count", report["count"]),
                *((name, show(report[name.lower()])) for name in ("Total", "Slowest", "Fastest", "Average")),
                ("Requests per second", f"{report['rps']:.2f}"),
            ]
        ),
        "<h2>Response times</h2>",
        _histogram(report["histogram"] or ()),
        "<h2>Latency distribution</h2>",
        _table((f"{row['percentage']} %", show(row["latency"])) for row in report["latencyDistribution"] or ()),
        "<h2>Status codes</h2>",
        _table(report["statusCodeDistribution"].items()),
    ]
    if report["errorDistribution"]:
        parts += ["<h2>Errors</h2>", _table(report["errorDistribution"].items())]
    options = escape(json.dumps(report["options"], indent=2, ensure_ascii=False))
    parts += ["<h2>Options</h2>", f"<pre>{options}</pre>", "</body></html>"]
    return "\n".join(parts) + "\n"


def _table(rows: Iterable[tuple[Any, Any]]) -> str:
    cells = (f'<tr><td>{escape(str(a))}</td><td class="number">{escape(str(b))}</td></tr>' for a, b in rows)
    return f"<table>{''.join(cells)}</table>"


def _histogram(rows: Sequence[dict[str, float]]) -> str:
    most = max((row["count"] for row in rows), default=0)
    cells = (
        f'<tr><td class="number">{row["mark"] * 1_000:.3f} ms</td><td class="number">{row["count"]:.0f}</td>'
        f'<td class="bar"><div style="width:{100 * row["count"] / most:.1f}%"></div></td></tr>'
        for row in rows
    )
    return f"<table>{''.join(cells)}</table>"
