"""graphs: draws all graphs, as PNG and SVG, of the last hour and the last day.

`python -m services.metrics.graphs DIRECTORY NICENESS` loads what it needs, reads graph data as JSON from its standard
input, draws, prints the paths and ends. It runs as a process of its own because matplotlib takes a second and 80 MB:
the service's event loop never waits for it, and the memory goes back when the pictures are done. With niceness 0
somebody waits: then two processes share the work. A picture appears under its name when it is whole.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.metrics.catalogue import GRAPHS, HOURLY, NAMES
from services.metrics.graph_data import DAY_S, HOUR_S, GraphData, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

FORMATS: Final = ("png", "svg")
_SUFFIXES: Final = {DAY_S: "", HOUR_S: "_hour"}
_DPI: Final = 110


def file_name(name: str, period_s: int, picture_format: str) -> str:
    """The name of a picture: `latency_timeline.png` shows a day, `latency_timeline_hour.png` an hour."""
    suffix = "" if name == HOURLY else _SUFFIXES[period_s]
    return f"{name}{suffix}.{picture_format}"


def pictures(periods: Sequence[GraphData]) -> list[tuple[str, GraphData]]:
    """All pictures, as names of graphs with their data. Hours are bars of one day, whatever the period."""
    return [(name, data) for data in periods for name in NAMES if name != HOURLY or data.period_s == DAY_S]


def figure_of(name: str, data: GraphData) -> Figure:
    """A graph as a figure."""
    from services.metrics import drawing

    return drawing.draw_hours(data) if name == HOURLY else drawing.draw_lines(GRAPHS[name], data)


def draw_all(wanted: Sequence[tuple[str, GraphData]], directory: Path) -> list[Path]:
    """Draw pictures into the directory and return their paths."""
    import matplotlib as mpl

    from services.metrics import drawing

    mpl.use("Agg")
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(drawing.STYLE):
        for name, data in wanted:
            figure = figure_of(name, data)
            for picture_format in FORMATS:
                path = directory / file_name(name, data.period_s, picture_format)
                partial = directory / f".{path.name}.partial"
                # Without the date in it, the same data give the same file.
                metadata = {"Date": None} if picture_format == "svg" else {}
                figure.savefig(partial, format=picture_format, dpi=_DPI, metadata=metadata)
                partial.replace(path)
                paths.append(path)
    return paths


def draw_in_two(wanted: Sequence[tuple[str, GraphData]], directory: Path) -> list[Path]:
    """As `draw_all`, with a second process that draws every other picture. Raises OSError where that one failed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            draw_all(wanted[1::2], directory)
            status = 0
        finally:
            os._exit(status)
    draw_all(wanted[::2], directory)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("the second process that draws has failed")
    return [
        directory / file_name(name, data.period_s, picture_format)
        for name, data in wanted
        for picture_format in FORMATS
    ]


def main() -> None:
    """Draw what is told on the standard input into the directory that is the first argument."""
    niceness = int(sys.argv[2])
    os.nice(niceness)
    from services.metrics import drawing  # before anything is read: who will want pictures soon can have this over with

    assert drawing.STYLE
    wanted = pictures(decode(sys.stdin.buffer.read()))
    draw = draw_all if niceness else draw_in_two
    for path in draw(wanted, Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
