"""`parley admin stats` and `watch`."""

from __future__ import annotations

import json
from argparse import Namespace

import grpc
from parley.metrics.v1 import metrics_pb2, metrics_pb2_grpc

from client.admin.channels import CALL_TIMEOUT_S, ask_one
from client.admin.report import Context, moment


def show(context: Context, arguments: Namespace) -> None:
    """Shows the statistics as they stand now."""
    request = metrics_pb2.GetStatisticsRequest()
    response = ask_one(
        context.channels,
        "metrics",
        lambda channel: metrics_pb2_grpc.MetricsServiceStub(channel).GetStatistics(request, timeout=CALL_TIMEOUT_S),
    )
    values = dict(sorted(response.values.items()))
    if context.as_json:
        context.write_values({"timestamp_ms": response.timestamp_ms, "values": values})
    else:
        context.write_values({"time": moment(response.timestamp_ms), **values})


def watch(context: Context, arguments: Namespace) -> None:
    """Writes the statistics again and again, one JSON line each, until it is stopped or has written `--count`."""

    def follow(channel: grpc.Channel) -> None:
        request = metrics_pb2.StreamStatisticsRequest(interval_s=arguments.interval)
        responses = metrics_pb2_grpc.MetricsServiceStub(channel).StreamStatistics(request)
        for number, response in enumerate(responses, start=1):
            line = {"timestamp_ms": response.timestamp_ms, "values": dict(sorted(response.values.items()))}
            context.out.write(json.dumps(line) + "\n")
            context.out.flush()
            if number == arguments.count:
                responses.cancel()
                return

    ask_one(context.channels, "metrics", follow)
