"""The edge's counters: what is counted while it happens, under the names that dashboards know."""

from __future__ import annotations

from typing import Final

from services.common.counters import Counters
from services.edge.qos.classes import QosClass

_SECONDS: Final = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.008,
    0.013,
    0.02,
    0.035,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
)


class Traffic:
    """Counters and histograms of one edge."""

    __slots__ = (
        "accepted",
        "acknowledged",
        "bytes_received",
        "bytes_sent",
        "delivered",
        "errors",
        "file_bytes_in",
        "file_bytes_out",
        "frames_received",
        "frames_sent",
        "publish_duration",
        "queue_accepted",
        "queue_refused",
        "queue_waits",
        "refused",
        "request_duration",
        "texts_received",
    )

    def __init__(self, counters: Counters) -> None:
        count, histogram = counters.counter, counters.histogram
        self.accepted = count("parley.edge.connections.accepted", "1", "Connections that came in.")
        self.refused = count("parley.edge.connections.refused", "1", "Connections turned away or closed for others.")
        self.frames_received = count("parley.edge.frames.received", "1", "Frames from clients.")
        self.frames_sent = count("parley.edge.frames.sent", "1", "Frames to clients.")
        self.bytes_received = count("parley.edge.bytes.received", "By", "Bytes from clients, without TLS.")
        self.bytes_sent = count("parley.edge.bytes.sent", "By", "Bytes to clients, without TLS.")
        self.texts_received = count("parley.edge.messages.received", "1", "Text messages that were queued.")
        self.acknowledged = count("parley.edge.messages.acknowledged", "1", "Text messages that were stored.")
        self.file_bytes_in = count("parley.edge.files.received", "By", "File bytes from clients.")
        self.file_bytes_out = count("parley.edge.files.sent", "By", "File bytes to clients.")
        self.delivered = count("parley.edge.messages.delivered", "1", "Messages given to connections.")
        self.errors = count("parley.edge.errors", "1", "Refusals that were sent.")
        self.request_duration = histogram(
            "parley.edge.request.duration", "s", _SECONDS, "From a frame to the reply to it."
        )
        self.publish_duration = histogram(
            "parley.edge.publish.duration", "s", _SECONDS, "From a text message to its acknowledgement."
        )
        labels = {qos_class: {"qos_class": qos_class.label} for qos_class in QosClass}
        self.queue_accepted = {
            qos_class: count("parley.edge.queue.accepted", "1", "Requests that were taken.", attributes=label)
            for qos_class, label in labels.items()
        }
        self.queue_refused = {
            qos_class: count("parley.edge.queue.refused", "1", "Requests that were refused.", attributes=label)
            for qos_class, label in labels.items()
        }
        waits = "Waiting time of requests that could not start at once."
        self.queue_waits = {
            qos_class: histogram("parley.edge.queue.wait", "s", _SECONDS, waits, attributes=label)
            for qos_class, label in labels.items()
        }

    def count_stored(self, seconds: float, count: int) -> None:
        """So many texts were acknowledged, that long after they came."""
        self.acknowledged.add(count)
        self.publish_duration.observe(seconds, count)
        self.request_duration.observe(seconds, count)
