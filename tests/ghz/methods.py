"""The method that a run calls: from .proto files, a compiled descriptor set, or the server itself (reflection)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

from tests.ghz.settings import Settings, SettingsError

if TYPE_CHECKING:
    import grpc
    from google.protobuf.descriptor import MethodDescriptor

COMPILE_S = 60


def find(settings: Settings, channel: grpc.Channel) -> MethodDescriptor:
    """The method that `settings.call` names. Raises SettingsError where there is none such."""
    service, method = _names(settings.call)
    if settings.proto:
        pool = _pool(_compile(settings))
    elif settings.protoset:
        pool = _pool(_read(settings.protoset))
    else:
        pool = _ask(channel)
    try:
        return pool.FindServiceByName(service).methods_by_name[method]
    except KeyError:
        raise SettingsError(f"call: there is no method {service}/{method}") from None


def _names(call: str) -> tuple[str, str]:
    service, separator, method = call.lstrip(".").rpartition("/" if "/" in call else ".")
    if not separator or not service or not method:
        raise SettingsError(f"call: {call!r} is not package.Service/Method")
    return service, method


def _compile(settings: Settings) -> bytes:
    source = Path(settings.proto)
    if not source.is_file():
        raise SettingsError(f"proto: there is no file {source}")
    folders = [*settings.import_paths, ".", str(source.parent)]
    with tempfile.TemporaryDirectory(prefix="parley-ghz-") as folder:
        target = Path(folder) / "set"
        compiled = subprocess.run(
            [
                sys.executable, "-m", "grpc_tools.protoc", *(f"-I{path}" for path in folders),
                "--include_imports", f"--descriptor_set_out={target}", str(source),
            ],
            capture_output=True, text=True, timeout=COMPILE_S, check=False,
        )  # fmt: skip
        if compiled.returncode != 0:
            raise SettingsError(f"proto: {compiled.stderr.strip() or 'the compiler failed'}")
        return target.read_bytes()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"protoset: {path}: {error.strerror}") from error


def _pool(serialized: bytes) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file:
            pool.Add(file)
    except (DecodeError, TypeError) as error:  # TypeError: a file whose imports are missing
        raise SettingsError(f"protoset: no complete descriptor set ({error})") from error
    return pool


def _ask(channel: grpc.Channel) -> descriptor_pool.DescriptorPool:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
