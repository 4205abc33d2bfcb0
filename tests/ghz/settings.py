"""What a run is asked to do: ghz's configuration keys, from a JSON or TOML file and from flags of the same names.

Source of keys and defaults: `ghz --help` of v0.121.0. A key that ghz knows and this runner does not is refused, never
ignored.
"""
# ruff: noqa: RUF009 -- `_key` makes a dataclass's field

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.ghz import durations
from tests.ghz.durations import Nanoseconds

SCHEDULES: Final = ("const", "step", "line")
FORMATS: Final = ("summary", "csv", "json", "pretty", "html")
STOPS: Final = ("close", "wait", "ignore")
UNSUPPORTED: Final = frozenset({"debug", "lb-strategy"})
CONFIG_BYTES_MAX: Final = 64 * 1024 * 1024


class SettingsError(Exception):
    """Something in the configuration or the flags cannot be meant; the message says what."""


def _key(default: Any, text: str, *, name: str = "", short: str = "") -> Any:
    metadata = {"name": name, "short": short, "text": text}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. Fields are ghz's keys with underscores; durations are in nanoseconds."""

    call: str = _key("", "method, as package.Service/Method")
    host: str = _key("", "host and port")
    proto: str = _key("", ".proto file; without it and --protoset the server is asked (reflection)")
    protoset: str = _key("", "compiled FileDescriptorSet")
    import_paths: list[str] = _key([], "folders for imports of the .proto file, separated by commas", short="i")
    cacert: str = _key("", "PEM file with the authorities that vouch for the server")
    cert: str = _key("", "PEM file with the certificate to present; needs --key")
    key: str = _key("", "PEM file with that certificate's key")
    cname: str = _key("", "name that the server's certificate must have, in place of the host's")
    skipTLS: bool = _key(False, "ghz: do not verify the server", name="skipTLS")  # noqa: N815 -- the key's name
    insecure: bool = _key(False, "no TLS")
    authority: str = _key("", ":authority, with --insecure only")
    total: int = _key(200, "requests", short="n")
    concurrency: int = _key(50, "requests under way at most", short="c")
    connections: int = _key(1, "connections; the workers take turns")
    rps: int = _key(0, "requests per second (0: as fast as possible)", short="r")
    run_async: bool = _key(False, "do not wait for a request before the next is sent", name="async")
    duration: Nanoseconds = _key(Nanoseconds(0), "run this long; total is ignored then", short="z")
    max_duration: Nanoseconds = _key(Nanoseconds(0), "end then, even when requests are left", short="x")
    duration_stop: str = _key("close", f"requests under way at the end: {', '.join(STOPS)}")
    timeout: Nanoseconds = _key(Nanoseconds(20 * durations.SECOND_NS), "of each request (0: none)", short="t")
    connect_timeout: Nanoseconds = _key(Nanoseconds(10 * durations.SECOND_NS), "of the first connection")
    keepalive: Nanoseconds = _key(Nanoseconds(0), "time between keepalive pings (0: none)")
    load_schedule: str = _key("const", f"rate over time: {', '.join(SCHEDULES)}")
    load_start: int = _key(0, "requests per second at first")
    load_step: int = _key(0, "change per step, or per second of a line")
    load_end: int = _key(0, "requests per second in the end")
    load_step_duration: Nanoseconds = _key(Nanoseconds(0), "length of a step")
    load_max_duration: Nanoseconds = _key(Nanoseconds(0), "time until the rate stays as it is")
    concurrency_schedule: str = _key("const", f"workers over time: {', '.join(SCHEDULES)}")
    concurrency_start: int = _key(1, "workers at first")
    concurrency_step: int = _key(0, "change per step, or per second of a line")
    concurrency_end: int = _key(0, "workers in the end")
    concurrency_step_duration: Nanoseconds = _key(Nanoseconds(0), "length of a step")
    concurrency_max_duration: Nanoseconds = _key(Nanoseconds(0), "time until the number stays as it is")
    data: Any = _key(None, "request as JSON: an object, or an array that is used in turn", short="d")
    data_file: str = _key("", "file with such JSON", short="D")
    binary_file: str = _key("", "file with one serialized request", short="B")
    metadata: dict[str, str] = _key({}, "metadata as a JSON object", short="m")
    metadata_file: str = _key("", "file with such JSON", short="M")
    reflect_metadata: dict[str, str] = _key({}, "metadata of the reflection call, as a JSON object")
    stream_interval: Nanoseconds = _key(Nanoseconds(0), "time between the messages of a stream")
    stream_call_duration: Nanoseconds = _key(Nanoseconds(0), "close each stream after this time")
    stream_call_count: int = _key(0, "close each stream after so many messages")
    stream_dynamic_messages: bool = _key(False, "fill templates anew for each message of a stream")
    disable_template_functions: bool = _key(False, "leave template functions alone")
    disable_template_data: bool = _key(False, "leave templates alone")
    max_recv_message_size: str = _key("", 'largest response, such as "4 MB" (default: no limit)')
    max_send_message_size: str = _key("", "largest request")
    enable_compression: bool = _key(False, "compress requests with gzip", short="e")
    output: str = _key("", "file for the report (default: standard output)", short="o")
    format: str = _key("summary", f"report: {', '.join(FORMATS)}", short="O")
    skipFirst: int = _key(0, "leave the first results out", name="skipFirst")  # noqa: N815 -- the key's name
    count_errors: bool = _key(False, "latencies of failed calls count in the distribution")
    name: str = _key("", "name of the run")
    tags: dict[str, str] = _key({}, "tags as a JSON object")
    cpus: int = _key(os.cpu_count() or 1, "processors for ghz to use; this runner takes what it needs")


def key_of(part: dataclasses.Field[Any]) -> str:
    """The configuration key of a field."""
    return part.metadata["name"] or part.name.replace("_", "-")


FIELDS: Final = {key_of(part): part for part in dataclasses.fields(Settings)}


def read(argv: list[str]) -> Settings:
    """Settings from flags, which win over the file of --config. Raises SettingsError, or exits as argparse does."""
    parsed = vars(_parser().parse_args(argv))
    values = load_file(Path(parsed["config"])) if parsed["config"] else {}
    if parsed["target"]:
        values["host"] = parsed["target"]
    values.update({key: parsed[key] for key in FIELDS if parsed.get(key) is not None})
    return from_values(values)


def load_file(path: Path) -> dict[str, Any]:
    """The keys of a configuration file: TOML where its name says so, else JSON. Raises SettingsError."""
    try:
        raw = _read(path)
        values = tomllib.loads(raw.decode()) if path.suffix == ".toml" else json.loads(raw)
    except ValueError as error:  # of JSON, of TOML, of UTF-8
        raise SettingsError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: the configuration must be an object")
    return values


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise SettingsError(f"{path}: larger than {CONFIG_BYTES_MAX} bytes")
    return raw


def from_values(values: dict[str, Any]) -> Settings:
    """Checked settings from keys as in a configuration file. Raises SettingsError, naming the key."""
    for key in values:
        if key in UNSUPPORTED:
            raise SettingsError(f"{key}: the real ghz knows this key, this runner does not")
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            raise SettingsError(f"{key}: there is no such key" + (f"; is it {near[0]}?" if near else ""))
    converted = {FIELDS[key].name: _convert(key, value) for key, value in values.items()}
    settings = Settings(**converted)
    settings = _with_files(settings)
    _check(settings)
    return settings


def _convert(key: str, value: Any) -> Any:
    kind = str(FIELDS[key].type)
    try:
        if kind == "Nanoseconds":
            return durations.parse(str(value))
        if kind == "int":
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError("must be a whole number")
            return _bounded(key, int(value))
        if kind == "bool":
            if not isinstance(value, bool):
                raise ValueError("must be true or false")
            return value
        if kind == "list[str]":
            return value.split(",") if isinstance(value, str) else [str(entry) for entry in value]
        if kind == "dict[str, str]":
            return _strings(json.loads(value) if isinstance(value, str) else value)
        if kind == "Any":
            return json.loads(value) if isinstance(value, str) else value
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{key}: {error}") from error
    if not isinstance(value, str):
        raise SettingsError(f"{key}: must be text")
    return value


def _bounded(key: str, value: int) -> int:
    may_be_negative = key in ("load-step", "concurrency-step")
    if (value < 0 and not may_be_negative) or abs(value) > 1_000_000_000:
        raise ValueError(f"{value} is out of bounds")
    return value


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
        raise ValueError("must be an object of strings")
    return value


def _with_files(settings: Settings) -> Settings:
    changes: dict[str, Any] = {}
    for source, target in (("data_file", "data"), ("metadata_file", "metadata")):
        path = getattr(settings, source)
        if path:
            try:
                content = json.loads(_read(Path(path)))
                changes[target] = _strings(content) if target == "metadata" else content
            except ValueError as error:
                raise SettingsError(f"{path}: {error}") from error
    return dataclasses.replace(settings, **changes)


def _check(settings: Settings) -> None:
    for is_wrong, problem in (
        (not settings.call, "call: which method?"),
        (not settings.host, "host: which server?"),
        (bool(settings.cert) != bool(settings.key), "cert and key go together"),
        (bool(settings.authority) and not settings.insecure, "authority: goes with insecure only"),
        (settings.skipTLS, "skipTLS: this runner always verifies the server; give its authority as cacert"),
        (settings.concurrency < 1, "concurrency: at least 1"),
        (settings.connections < 1, "connections: at least 1"),
        (settings.connections > settings.concurrency, "connections: not more than concurrency"),
        (not settings.duration and settings.total < 1, "total: at least 1"),
        (not settings.duration and settings.concurrency > settings.total, "concurrency: not more than total"),
        (settings.format not in FORMATS, f"format: one of {', '.join(FORMATS)}"),
        (settings.duration_stop not in STOPS, f"duration-stop: one of {', '.join(STOPS)}"),
        (bool(settings.proto) and bool(settings.protoset), "proto and protoset: only one of them"),
        (bool(settings.binary_file) and settings.data is not None, "binary-file and data: only one of them"),
    ):
        if is_wrong:
            raise SettingsError(problem)
    _check_data(settings.data)
    _check_schedule(settings, "load")
    _check_schedule(settings, "concurrency")


def _check_data(data: Any) -> None:
    entries = data if isinstance(data, list) else [{} if data is None else data]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError("data: must be an object, or an array of objects that is not empty")


def _check_schedule(settings: Settings, of: str) -> None:
    def value(name: str) -> Any:
        return getattr(settings, f"{of}_{name}")

    if value("schedule") not in SCHEDULES:
        raise SettingsError(f"{of}-schedule: one of {', '.join(SCHEDULES)}")
    if value("schedule") == "const":
        return
    if not value("start"):
        raise SettingsError(f"{of}-start: at least 1 for this schedule")
    if not value("step"):
        raise SettingsError(f"{of}-step: must not be 0 for this schedule")
    if value("schedule") == "step" and not value("step_duration"):
        raise SettingsError(f"{of}-step-duration: needed for steps")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley ghz",
        description="Makes gRPC calls as a ghz configuration says, and reports. The flags are ghz's.",
    )
    parser.add_argument("--config", metavar="FILE", help="JSON or TOML file of keys that are named as the flags are")
    parser.add_argument("target", nargs="?", metavar="HOST:PORT", help="as --host")
    for key, part in FIELDS.items():
        flags = [f"--{key}", *([f"-{part.metadata['short']}"] if part.metadata["short"] else [])]
        if str(part.type) == "bool":
            parser.add_argument(*flags, dest=key, action="store_true", default=None, help=part.metadata["text"])
        else:
            parser.add_argument(*flags, dest=key, metavar="X", help=part.metadata["text"])
    return parser
