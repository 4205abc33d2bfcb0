"""What is sent: request messages and metadata, with their templates filled in for each request."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, message_factory
from google.protobuf.message import DecodeError, Message

from tests.ghz.settings import Settings, SettingsError
from tests.ghz.templates import Request, Template, call_fields

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

Metadata = tuple[tuple[str, str | bytes], ...]


class Payloads:
    """Makes the messages and the metadata of each request. Raises SettingsError for data that does not fit."""

    def __init__(self, settings: Settings, method: MethodDescriptor) -> None:
        self._settings = settings
        self._method = method
        self._kind: type[Message] = message_factory.GetMessageClass(method.input_type)
        self._binary = self._read_binary()
        data = settings.data if settings.data is not None else {}
        self._is_array = isinstance(data, list)
        entries = data if self._is_array else [data]
        self._templates = [self._template(entry) for entry in entries]
        self._ready = {
            index: self._parse(template.fill({}))
            for index, template in enumerate(self._templates)
            if template.is_constant
        }
        self._metadata = self._template(settings.metadata)

    @property
    def method(self) -> MethodDescriptor:
        """The method that is called."""
        return self._method

    def messages(self, request: Request) -> Iterator[Message]:
        """The messages of one call: one, or for a stream from the client all of the data, up to `stream-call-count`.

        With a count, the data is used again and again until there are so many.
        """
        if self._binary is not None:
            return iter([self._binary])
        if not self._method.client_streaming:
            return iter([self._message(request.number % len(self._templates), self._fields(request))])
        return self._stream(request)

    def metadata(self, request: Request) -> Metadata:
        """The metadata of one call. Values of keys that end in -bin are base64 in the configuration."""
        if not self._settings.metadata:
            return ()
        values: dict[str, str] = json.loads(self._metadata.fill(self._fields(request)))
        return tuple(
            (key.lower(), base64.b64decode(value) if key.lower().endswith("-bin") else value)
            for key, value in values.items()
        )

    def _stream(self, request: Request) -> Iterator[Message]:
        count = self._settings.stream_call_count
        indexes = range(len(self._templates))
        chosen = itertools.islice(itertools.cycle(indexes), count) if count else iter(indexes)
        fields = self._fields(request)
        for index in chosen:
            if self._settings.stream_dynamic_messages:
                fields = self._fields(request)
            yield self._message(index, fields)

    def _message(self, index: int, fields: Mapping[str, str]) -> Message:
        ready = self._ready.get(index)
        return ready if ready is not None else self._parse(self._templates[index].fill(fields))

    def _fields(self, request: Request) -> Mapping[str, str]:
        return call_fields(request, self._method, datetime.now(UTC).astimezone())

    def _template(self, value: Any) -> Template:
        text = json.dumps(value, ensure_ascii=False)
        if self._settings.disable_template_data:
            text = text.replace("{{", r"\u007b\u007b")
        return Template(text, with_functions=not self._settings.disable_template_functions)

    def _parse(self, text: str) -> Message:
        try:
            return json_format.Parse(text, self._kind())
        except json_format.ParseError as error:
            raise SettingsError(f"data: does not fit {self._method.input_type.full_name}: {error}") from error

    def _read_binary(self) -> Message | None:
        path = self._settings.binary_file
        if not path:
            return None
        try:
            return self._kind.FromString(Path(path).read_bytes())
        except (OSError, DecodeError) as error:
            raise SettingsError(f"binary-file: {path}: {error}") from error
