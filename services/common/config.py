"""Configuration: a frozen dataclass per service, filled from defaults, a TOML file and the environment.

Later sources win: defaults < `[common]` < `[<service>]` < `PARLEY_COMMON_<KEY>` < `PARLEY_<SERVICE>_<KEY>`. A key
that nobody knows, or a value that does not fit, stops the start with a message that names the key: a typing
mistake must not turn into a default. Secrets are not configured; paths to files that hold them are.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from services.common.logs import LEVELS

if typing.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

C = TypeVar("C", bound="ServiceConfig")

COMMON: Final = "common"
# One file may configure the whole stack; `stack` is the stack runner's own table.
TABLES: Final = frozenset({COMMON, "auth", "edge", "metrics", "rooms", "stack"})
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class ConfigError(Exception):
    """A configuration that cannot be used; `key` names the place as the operator wrote it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"configuration: {key}: {reason}")
        self.key = key
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What every service is told. A service's own dataclass adds to it and checks itself in `__post_init__`.

    `listen` is the gRPC address; port 0 takes a free one. `ca` verifies the other services; `home` is where the
    stack keeps its data. `otlp_endpoint` ("host:port") is where metrics, spans and logs go, None keeps them here.
    `trace_ratio` of all messages and commands is traced, but begun for at most `trace_rate_max` of them a second in one
    edge; what fails or takes longer than `trace_slow_s` is traced as well (services/edge/sampling.py has its ceiling).
    """

    name: str
    listen: str = "127.0.0.1:0"
    certificate: Path
    private_key: Path
    ca: Path
    home: Path
    log_file: Path | None = None
    log_level: str = "info"
    otlp_endpoint: str | None = None
    metrics_interval_s: float = 10.0
    trace_ratio: float = 0.01
    trace_rate_max: float = 5.0
    trace_slow_s: float = 1.0
    prometheus_listen: str = "127.0.0.1:0"
    ready_file: Path | None = None
    stop_grace_s: float = 5.0

    @property
    def audit_file(self) -> Path:
        """What operators did is written here; all processes of a home share it."""
        return self.home / "logs" / "audit.log"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: must not be empty")
        if self.log_level not in LEVELS:
            raise ValueError(f"log_level: one of {', '.join(LEVELS)}, not {self.log_level!r}")
        for key in ("listen", "prometheus_listen", "otlp_endpoint"):
            if (value := getattr(self, key)) is not None:
                try:
                    split_host_port(value)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        if self.metrics_interval_s <= 0:
            raise ValueError("metrics_interval_s: must be above 0")
        if not 0 <= self.trace_ratio <= 1:
            raise ValueError("trace_ratio: must be 0 to 1")
        for key in ("trace_rate_max", "trace_slow_s"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: must be above 0")
        if self.stop_grace_s < 0:
            raise ValueError("stop_grace_s: must not be negative")


def split_host_port(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` taken apart. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"expected host:port, not {address!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes into brackets: {address!r}")
    return host, int(port)


def load(cls: type[C], *, service: str, file: Path | None, environ: Mapping[str, str]) -> C:
    """The configuration of `service`. Raises ConfigError, which names the key."""
    # A module may import Path for the type checker only.
    hints = typing.get_type_hints(cls, localns={"Path": Path})
    own = {field.name for field in dataclasses.fields(cls) if field.init}
    shared = {field.name for field in dataclasses.fields(ServiceConfig)}
    values: dict[str, Any] = {}
    places: dict[str, str] = {}  # key -> where its value came from
    tables = _read_tables(file)
    for table, known in ((COMMON, shared), (service, own)):
        for key, value in tables.get(table, {}).items():
            place = f"[{table}] {key}"
            if key not in known:
                raise ConfigError(place, "unknown key")
            values[key], places[key] = _from_toml(hints[key], value, place), place
    for table, known in ((COMMON, shared), (service, own)):
        prefix = f"PARLEY_{table.upper()}_"
        for variable in sorted(environ):
            if variable.startswith(prefix):
                key = variable.removeprefix(prefix).lower()
                if key not in known:
                    raise ConfigError(variable, "unknown key")
                values[key], places[key] = _from_text(hints[key], environ[variable], variable), variable
    for field in dataclasses.fields(cls):
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and is_required and field.name not in values:
            raise ConfigError(field.name, f"is required (set PARLEY_{service.upper()}_{field.name.upper()})")
    try:
        return cls(**values)
    except ValueError as error:
        key, separator, reason = str(error).partition(": ")
        if separator and key in own:
            raise ConfigError(places.get(key, key), reason) from error
        raise ConfigError(service, str(error)) from error


def load_from_command_line(cls: type[C], *, service: str, argv: Sequence[str] | None = None) -> C:
    """The configuration of `python -m services.<service> [--config FILE]`; a bad one ends the process."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{service}", description=f"Parley's {service} service.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; PARLEY_… variables go before it")
    options = parser.parse_args(argv)
    try:
        return load(cls, service=service, file=options.config, environ=os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def _read_tables(file: Path | None) -> Mapping[str, Mapping[str, Any]]:
    if file is None:
        return {}
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(file), str(error)) from error
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise ConfigError(f"{file}: {name}", f"unknown table; there are {', '.join(sorted(TABLES))}")
    return tables


def _alternatives(hint: Any) -> tuple[Any, bool]:
    """The type without `| None`, and whether None was in it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(rest) != 1:
            raise TypeError(f"a configuration field cannot be {hint}")
        return rest[0], True
    return hint, False


def _from_toml(hint: Any, value: object, place: str) -> object:
    kind, _ = _alternatives(hint)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ConfigError(place, "expected an array")
        return tuple(_from_toml(typing.get_args(kind)[0], item, place) for item in value)
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    raise ConfigError(place, f"expected {_NAMES.get(kind, str(kind))}")


_NAMES: Final = {str: "a string", int: "an integer", float: "a number", bool: "true or false", Path: "a path"}


def _from_text(hint: Any, text: str, place: str) -> object:
    kind, may_be_none = _alternatives(hint)
    if may_be_none and not text:
        return None
    if typing.get_origin(kind) is tuple:
        items = [item.strip() for item in text.split(",")] if text.strip() else []
        return tuple(_from_text(typing.get_args(kind)[0], item, place) for item in items)
    try:
        value = _parse_scalar(kind, text)
    except ValueError:
        raise ConfigError(place, f"expected {_NAMES.get(kind, str(kind))}, not {text!r}") from None
    return value


def _parse_scalar(kind: Any, text: str) -> object:
    if kind is str:
        return text
    if kind is int:
        return int(text)
    if kind is float and math.isfinite(value := float(text)):
        return value
    if kind is bool and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if kind is Path and text:
        return Path(text).expanduser()
    raise ValueError(text)
