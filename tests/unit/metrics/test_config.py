from __future__ import annotations

from pathlib import Path

import pytest

from services.common.config import ConfigError, load
from services.metrics.config import MetricsConfig

BASE = {
    "PARLEY_METRICS_NAME": "metrics-1",
    "PARLEY_METRICS_HOME": "/srv/parley",
    **{f"PARLEY_METRICS_{key}": "x.pem" for key in ("CERTIFICATE", "PRIVATE_KEY", "CA")},
}


def read(**changes: str) -> MetricsConfig:
    environ = BASE | {f"PARLEY_METRICS_{key}": value for key, value in changes.items()}
    return load(MetricsConfig, service="metrics", file=None, environ=environ)


def test_defaults_are_under_the_home_directory() -> None:
    config = read()
    assert config.statistics_path == Path("/srv/parley/logs/performance_stats.json")
    assert config.graphs_path == Path("/srv/parley/monitoring/graphs")
    assert config.database == "sqlite:////srv/parley/data/metrics.db"
    assert (config.stats_interval_s, config.graphs_interval_s) == (60.0, 300.0)
    assert config.stale_after_s == 30.0


def test_everything_can_be_set() -> None:
    config = read(
        STATS_FILE="/a/stats.json",
        GRAPHS_DIR="/a/graphs",
        DATABASE_URL="sqlite:////a/m.db",
        METRICS_INTERVAL_S="2",
        STATS_INTERVAL_S="1",
    )
    assert config.statistics_path == Path("/a/stats.json")
    assert config.graphs_path == Path("/a/graphs")
    assert config.database == "sqlite:////a/m.db"
    assert config.stale_after_s == 6.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("STATS_INTERVAL_S", "0.5"),
        ("GRAPHS_INTERVAL_S", "-1"),
        ("MAX_INSTANCES", "0"),
        ("MAX_SERIES_PER_INSTANCE", "0"),
        ("MAX_POINTS_PER_EXPORT", "0"),
        ("STATS_INTERVAL", "5"),
    ],
)
def test_bad_values_are_named(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{key: value})
    assert caught.value.key == f"PARLEY_METRICS_{key}"
