"""The shape of the house: what may import what, where things are, how long they get.

The import rules are contracts in pyproject.toml; what a contract cannot say is here.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy import protos

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("services", "client", "deploy")
SERVICES = ("auth", "edge", "metrics", "rooms")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
MAIN_LINES_MAX = 100

# docs/architecture.md: generated messages are a format, not a domain.
MAY_IMPORT_GENERATED = {
    "servicer", "admin_servicer", "feed", "backends", "publisher", "interceptors", "errors", "otlp", "otlp_exporter",
}  # fmt: skip
MAY_IMPORT_SQLALCHEMY = {"store", "tables", "log", "db", "env"}
PURE = (
    "services/edge/session.py", "services/edge/hub.py", "services/edge/outbox.py", "services/edge/qos/scheduler.py",
    "services/edge/qos/classes.py", "services/rooms/rooms.py", "services/metrics/aggregate.py",
)  # fmt: skip
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter"}
IMPURE = {"asyncio", "time", "random", "secrets", "uuid", "socket", "ssl", "threading", "grpc"}


def sources() -> list[Path]:
    return sorted(
        path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts
    )


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> set[str]:
    """Dotted names of everything that the file imports, at any place."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def of(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_is_under_the_contracts() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert set(configuration["root_packages"]) == set(PACKAGES)


def test_only_the_rim_imports_generated_messages() -> None:
    for path in sources():
        names = of(imported(path), "parley") | of(imported(path), "opentelemetry.proto")
        if path.stem == "__main__":
            names = {name for name in names if not name.endswith("_pb2_grpc")}  # to add servicers to servers
        if path.stem not in MAY_IMPORT_GENERATED and not path.is_relative_to(ROOT / "client" / "admin"):
            assert not names, relative(path)


def test_only_stores_import_sqlalchemy() -> None:
    for path in sources():
        in_store = path.stem in MAY_IMPORT_SQLALCHEMY or {"migrations", "db"} & set(path.parts)
        assert in_store or not of(imported(path), "sqlalchemy"), relative(path)


def test_only_redis_modules_import_redis() -> None:
    for path in sources():
        assert path.stem.startswith("redis_") or not of(imported(path), "redis"), relative(path)


@pytest.mark.parametrize("name", PURE)
def test_what_decides_is_pure(name: str) -> None:
    path = ROOT / name
    roots = {imported_name.partition(".")[0] for imported_name in imported(path)}
    assert not roots & IMPURE
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{name}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CLOCKS, f"{name}:{node.lineno}"


def test_every_service_has_the_same_file_names() -> None:
    for service in SERVICES:
        names = {path.stem for path in (ROOT / "services" / service).iterdir()}
        expected = {"__init__", "__main__", "config", "servicer"}
        if service != "edge":  # which has no database
            expected |= {"store", "tables", "migrations"}
        assert expected <= names, (service, expected - names)


def test_main_modules_only_wire() -> None:
    for service in SERVICES:
        path = ROOT / "services" / service / "__main__.py"
        assert len(path.read_text().splitlines()) <= MAIN_LINES_MAX, service
        assert not [node for node in tree(path).body if isinstance(node, ast.ClassDef)], service


def test_files_and_functions_stay_short() -> None:
    for path in sources():
        assert len(path.read_text().splitlines()) <= FILE_LINES_MAX, relative(path)
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "migrations" not in path.parts:
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                assert lines <= FUNCTION_LINES_MAX, f"{relative(path)}:{node.lineno} {node.name} ({lines} lines)"


def test_nothing_is_named_for_having_no_name() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "manager", "base", "common_utils"}
    assert not [relative(path) for path in sources() if path.stem in vague]


def test_unit_tests_mirror_the_sources() -> None:
    for path in (ROOT / "tests" / "unit").rglob("test_*.py"):
        package, *folders = path.relative_to(ROOT / "tests" / "unit").parts[:-1]
        home = ROOT / package if package in PACKAGES else ROOT / "services" / package
        folder = home.joinpath(*folders)
        # test_scheduler.py and test_scheduler_load.py are both about scheduler.
        words = path.stem.removeprefix("test_").split("_")
        names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
        candidates = [folder / end for name in names for end in (f"{name}.py", f"{name}/__init__.py")]
        assert any(candidate.exists() for candidate in candidates), relative(path)


def test_stubs_are_what_the_protos_say(tmp_path: Path) -> None:
    protos.generate(tmp_path)
    generated = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.py*")}
    committed = {
        path.relative_to(protos.ROOT): path.read_bytes()
        for path in protos.ROOT.rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }
    assert generated == committed, "run `make protos`"


def test_nothing_depends_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    assert listed.stdout, "not a checkout"
    # Spelled in pieces, so that this file does not find itself.
    traces = ["/" + "home/", "/" + "root/", "/" + "work/", "/" + "Users/", "py" + "pi.org", "pythonhosted" + ".org"]
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".md", ".txt", ".in", ".lock", ".proto", ""} and path.is_file():
            text = path.read_text(errors="replace")
            assert not [trace for trace in traces if trace in text], name
