from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.local import configuration, options, plan, ports
from deploy.local.configuration import CONFIGS
from deploy.local.failures import StartError
from deploy.local.layout import Layout
from services.common.config import load
from tests.helpers import certificates
from tests.helpers.stack import ROOT

if TYPE_CHECKING:
    from deploy.local.plan import Spec

CONFIG = ROOT / "deploy" / "config"


def specs(tmp_path: Path) -> list[Spec]:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    chosen = options.from_arguments(parser.parse_args(["--home", str(tmp_path), "--port", "19999"]))
    return plan.make(chosen, Layout(chosen.home), certificates.shared().paths, ports.PortPicker())


def test_what_the_runner_says_is_what_every_service_understands(tmp_path: Path) -> None:
    configuration.check(specs(tmp_path), None)


@pytest.mark.parametrize("name", ["bench.toml", "parley.toml"])
def test_the_files_that_come_with_parley_are_right(tmp_path: Path, name: str) -> None:
    configuration.check(specs(tmp_path), CONFIG / name)


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    example = (CONFIG / "parley.toml").read_text()
    shown = tmp_path / "shown.toml"
    shown.write_text(re.sub(r"^#: ", "", example, flags=re.MULTILINE))
    assert shown.read_text().count("\n") > 20
    for spec in specs(tmp_path):
        cls = CONFIGS[spec.service]
        defaults = load(cls, service=spec.service, file=None, environ=spec.environment)
        assert load(cls, service=spec.service, file=shown, environ=spec.environment) == defaults


@pytest.mark.parametrize("service", sorted(CONFIGS))
def test_a_bad_key_is_named(tmp_path: Path, service: str) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(f"[{service}]\nno_such_key = 1\n")
    with pytest.raises(StartError, match="no_such_key"):
        configuration.check(specs(tmp_path), bad)


def test_a_variable_of_the_person_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_EDGE_TEXT_RATE", "fast")
    with pytest.raises(StartError, match="PARLEY_EDGE_TEXT_RATE"):
        configuration.check(specs(tmp_path), None)
