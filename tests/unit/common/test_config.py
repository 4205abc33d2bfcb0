from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.common.config import ConfigError, ServiceConfig, load, load_from_command_line, split_host_port

BASE = {"PARLEY_AUTH_NAME": "auth-1"} | {
    f"PARLEY_COMMON_{key}": f"/c/{key}" for key in ("CERTIFICATE", "PRIVATE_KEY", "CA", "HOME")
}


@dataclass(frozen=True, kw_only=True)
class AuthConfig(ServiceConfig):
    rounds: int = 12
    ratio: float = 0.5
    strict: bool = True
    pepper: Path | None = None
    targets: tuple[str, ...] = ()
    bounds: tuple[float, ...] = (1.0,)
    limit: int | None = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 4:
            raise ValueError("rounds: at least 4")


def load_auth(file: Path | None = None, **environ: str) -> AuthConfig:
    return load(AuthConfig, service="auth", file=file, environ={**BASE, **environ})


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "parley.toml"
    path.write_text(text)
    return path


def test_defaults_stand_where_nothing_is_said() -> None:
    config = load_auth()
    assert (config.name, config.certificate, config.rounds, config.listen) == (
        "auth-1",
        Path("/c/CERTIFICATE"),
        12,
        "127.0.0.1:0",
    )


def test_later_sources_win(tmp_path: Path) -> None:
    file = written(
        tmp_path, '[common]\nlog_level="debug"\nname="c"\n[auth]\nlog_level="error"\nrounds=5\n[rooms]\nx=1\n'
    )
    assert load_auth(file).log_level == "error"
    assert load_auth(file, PARLEY_COMMON_LOG_LEVEL="warning").log_level == "warning"
    assert load_auth(file, PARLEY_COMMON_LOG_LEVEL="warning", PARLEY_AUTH_LOG_LEVEL="info").log_level == "info"
    assert load_auth(file, PARLEY_AUTH_ROUNDS="6").rounds == 6
    assert load_auth(file).rounds == 5


def test_values_of_every_type_are_read_from_the_environment() -> None:
    config = load_auth(
        PARLEY_AUTH_ROUNDS="7",
        PARLEY_AUTH_RATIO="2",
        PARLEY_AUTH_STRICT="off",
        PARLEY_AUTH_PEPPER="~/p",
        PARLEY_AUTH_TARGETS="a:1, b:2",
        PARLEY_AUTH_BOUNDS="1,2.5",
        PARLEY_AUTH_LIMIT="",
    )
    assert (config.rounds, config.ratio, config.strict, config.limit) == (7, 2.0, False, None)
    assert (config.pepper, config.targets, config.bounds) == (Path("~/p").expanduser(), ("a:1", "b:2"), (1.0, 2.5))
    assert load_auth(PARLEY_AUTH_TARGETS="").targets == ()


def test_values_of_every_type_are_read_from_the_file(tmp_path: Path) -> None:
    text = '[auth]\nrounds=7\nratio=2\nstrict=false\npepper="/p"\ntargets=["a:1"]\nbounds=[1,2.5]\nlimit=9\n'
    config = load_auth(written(tmp_path, text))
    assert (config.rounds, config.ratio, config.strict, config.limit) == (7, 2.0, False, 9)
    assert (config.pepper, config.targets, config.bounds) == (Path("/p"), ("a:1",), (1.0, 2.5))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PARLEY_AUTH_NO_SUCH_KEY", "1"),
        ("PARLEY_COMMON_ROUNDS", "5"),
        ("PARLEY_AUTH_ROUNDS", "five"),
        ("PARLEY_AUTH_ROUNDS", ""),
        ("PARLEY_AUTH_ROUNDS", "3"),
        ("PARLEY_AUTH_RATIO", "nan"),
        ("PARLEY_AUTH_RATIO", "inf"),
        ("PARLEY_AUTH_STRICT", "maybe"),
        ("PARLEY_AUTH_BOUNDS", "1,x"),
        ("PARLEY_AUTH_HOME", ""),
        ("PARLEY_AUTH_LOG_LEVEL", "loud"),
        ("PARLEY_AUTH_LISTEN", "nowhere"),
        ("PARLEY_AUTH_OTLP_ENDPOINT", "host:70000"),
        ("PARLEY_AUTH_METRICS_INTERVAL_S", "0"),
        ("PARLEY_AUTH_STOP_GRACE_S", "-1"),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_auth(**{variable: value})
    assert caught.value.key == variable
    assert variable in str(caught.value)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("rounds='7'", "[auth] rounds"),
        ("rounds=true", "[auth] rounds"),
        ("rounds=1.0", "[auth] rounds"),
        ("ratio=true", "[auth] ratio"),
        ("ratio=nan", "[auth] ratio"),
        ("strict=1", "[auth] strict"),
        ("pepper=''", "[auth] pepper"),
        ("targets='a'", "[auth] targets"),
        ("targets=[1]", "[auth] targets"),
        ("round=7", "[auth] round"),
        ("rounds=1", "[auth] rounds"),
    ],
)
def test_a_bad_key_of_the_file_is_named(tmp_path: Path, line: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_auth(written(tmp_path, f"[auth]\n{line}\n"))
    assert caught.value.key == place


@pytest.mark.parametrize("text", ["[auht]\nrounds=7\n", "rounds=7\n", "[auth\n", "[common]\nrounds=7\n"])
def test_a_file_that_means_nothing_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_auth(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load_auth(tmp_path / "gone.toml")


def test_a_required_key_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="PARLEY_AUTH_CERTIFICATE"):
        load(AuthConfig, service="auth", file=None, environ={"PARLEY_AUTH_NAME": "a"})


def test_other_services_variables_are_none_of_its_business() -> None:
    assert load_auth(PARLEY_ROOMS_WHATEVER="1", PARLEYX="2").rounds == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [("localhost:1", ("localhost", 1)), ("[::1]:65535", ("::1", 65535)), ("0.0.0.0:0", ("0.0.0.0", 0))],  # noqa: S104
)
def test_addresses_are_taken_apart(text: str, expected: tuple[str, int]) -> None:
    assert split_host_port(text) == expected


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:x", "host:-1", "host:65536", "::1:5", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        split_host_port(text)


def test_the_command_line_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in BASE.items():
        monkeypatch.setitem(os.environ, key, value)
    file = written(tmp_path, "[auth]\nrounds=9\n")
    assert load_from_command_line(AuthConfig, service="auth", argv=["--config", str(file)]).rounds == 9


def test_a_bad_configuration_ends_the_process_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in {**BASE, "PARLEY_AUTH_ROUNDS": "x"}.items():
        monkeypatch.setitem(os.environ, key, value)
    with pytest.raises(SystemExit) as caught:
        load_from_command_line(AuthConfig, service="auth", argv=[])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "configuration: PARLEY_AUTH_ROUNDS: expected an integer, not 'x'\n"
