from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser

import pytest

from tests.ghz import formats, settings
from tests.ghz.test_report import ERROR, NOW, made, ok

HOSTILE = 'rpc error: code = Internal desc = <script>alert(1)</script>\x1b[31m,"quoted"'


def reported(error: str = ERROR) -> dict[str, object]:
    from tests.ghz.calls import Outcome

    return made([ok(1_000_000), ok(3_000_000), Outcome(NOW, 2_000_000, "Internal", error)], name="a <run>")


def test_programs_read_json() -> None:
    assert json.loads(formats.render(reported(), "json")) == reported()
    assert json.loads(formats.render(reported(), "pretty")) == reported()


def test_csv_has_a_row_for_each_call() -> None:
    rows = list(csv.reader(io.StringIO(formats.render(reported(HOSTILE), "csv"))))
    assert rows == [
        ["duration (ms)", "status", "error"],
        ["1.00", "OK", ""],
        ["3.00", "OK", ""],
        ["2.00", "Internal", HOSTILE],
    ]


def test_people_read_a_summary() -> None:
    summary = formats.render(reported(), "summary")
    for part in ("Count:", "3", "Average:", "2.00 ms", "99 % in 3.00 ms", "[OK]", "2 responses", f"[1]  {ERROR}", "∎"):
        assert part in summary


def test_a_terminal_obeys_nothing_of_what_a_server_says() -> None:
    assert "\x1b" not in formats.render(reported(HOSTILE), "summary")


def test_a_page_is_whole_and_runs_nothing() -> None:
    page = formats.render(reported(HOSTILE), "html")
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, _attributes: object) -> None:
            tags.append(tag)

    Reader().feed(page)
    assert "script" not in tags
    assert "src=" not in page
    assert "http" not in page
    assert tags.count("h2") == 6


@pytest.mark.parametrize("form", settings.FORMATS)
def test_every_form_can_show_a_run_without_calls(form: str) -> None:
    assert formats.render(made([]), form)
