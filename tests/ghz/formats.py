"""A report for people and for programs: summary, csv, json, pretty, html. What others wrote is made harmless."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from client.display import clean
from tests.ghz import page
from tests.ghz.durations import show

BAR_WIDTH = 40


def render(report: dict[str, Any], form: str) -> str:
    """The report in one of the forms that `settings.FORMATS` names."""
    match form:
        case "json":
            return json.dumps(report, ensure_ascii=False)
        case "pretty":
            return json.dumps(report, ensure_ascii=False, indent=2) + "\n"
        case "csv":
            return _csv(report)
        case "html":
            return page.render(report)
        case _:
            return _summary(report)


def _csv(report: dict[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["duration (ms)", "status", "error"])
    for detail in report["details"] or ():
        writer.writerow([f"{detail['latency'] / 1_000_000:.2f}", detail["status"], detail["error"]])
    return out.getvalue()


def _summary(report: dict[str, Any]) -> str:
    rows = [
        *([("Name", clean(report["name"]))] if report.get("name") else []),
        ("Count", str(report["count"])),
        *((name, show(report[name.lower()])) for name in ("Total", "Slowest", "Fastest", "Average")),
        ("Requests/sec", f"{report['rps']:.2f}"),
    ]
    lines = ["Summary:", *(f"  {name + ':':<14}{value}" for name, value in rows)]
    lines += ["", "Response time histogram (ms):", *_bars(report["histogram"] or ())]
    lines += ["", "Latency distribution:"]
    lines += [f"  {row['percentage']} % in {show(row['latency'])}" for row in report["latencyDistribution"] or ()]
    lines += ["", "Status code distribution:"]
    width = max((len(status) for status in report["statusCodeDistribution"]), default=0) + 2
    lines += [f"  {f'[{s}]':<{width}}  {count} responses" for s, count in report["statusCodeDistribution"].items()]
    if report["errorDistribution"]:
        lines += ["", "Error distribution:"]
        lines += [f"  [{count}]  {clean(error)}" for error, count in report["errorDistribution"].items()]
    return "\n".join(lines) + "\n"


def _bars(histogram: Sequence[dict[str, float]]) -> list[str]:
    most = max((row["count"] for row in histogram), default=0)
    marks = [f"{row['mark'] * 1_000:.3f}" for row in histogram]
    counts = [f"[{row['count']:.0f}]" for row in histogram]
    bars = ["∎" * round(row["count"] / most * BAR_WIDTH) for row in histogram]
    mark_width, count_width = (max(map(len, cells), default=0) for cells in (marks, counts))
    return [
        f"  {mark:<{mark_width}} {count:<{count_width}} |{bar}"
        for mark, count, bar in zip(marks, counts, bars, strict=True)
    ]
