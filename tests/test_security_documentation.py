"""docs/security.md names the tests that show what it says: they must exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.security_test import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "security.md"
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)(?:::(test_[a-z0-9_]+))?`")
_CHECK = re.compile(r'"([^"]+)"')
CHECKS = {name for checks in SECTIONS.values() for name in checks}


def rows() -> list[tuple[str, str]]:
    """Rows of the ASVS table: numbers, and what shows them."""
    lines = PAGE.read_text().split("## OWASP ASVS", 1)[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if re.match(r"\| \d", line)]
    return [(row[0].strip("| "), row[-1].rstrip("| ")) for row in cells]


@cache
def names(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("row", "shown"), rows())
def test_what_a_row_names_exists(row: str, shown: str) -> None:
    for file, test in _TEST.findall(shown):
        assert (ROOT / file).is_file(), file
        assert not test or test in names(ROOT / file), test
    for check in _CHECK.findall(shown):
        assert check in CHECKS, check


def test_every_row_has_a_number_of_its_own() -> None:
    numbers = [number for row, _ in rows() for number in re.split(r", | to ", row)]
    assert len(numbers) > 100
    assert len(set(numbers)) == len(numbers)
