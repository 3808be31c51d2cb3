"""The figures of a live run for Prometheus, over HTTP on this machine only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from centermask_edge.errors import SinkError, require
from centermask_edge.live.health import State
from centermask_edge.live.schedule.ages import RunningPercentiles
from centermask_edge.live.view.snapshot import Snapshot

_ADDRESS = "127.0.0.1"
_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0)
_PREFIX = "centermask"


class _Collector:
    """Makes every metric anew from a snapshot, when it is asked for."""

    def __init__(self, core: Any, read: Callable[[], Snapshot]) -> None:
        self._core, self._read = core, read

    def collect(self) -> Iterator[Any]:
        now = self._read()
        yield from self._cameras(now)
        yield from self._places(now)
        yield from self._ages(now)
        yield from self._run(now)
        yield from self._sinks(now)

    def _cameras(self, now: Snapshot) -> Iterator[Any]:
        state = self._gauge("camera_state", "1 for the state the camera is in.", "state")
        fault = self._gauge(
            "camera_fault", "1 for the fault that keeps it from being live.", "fault"
        )
        rate = self._gauge("camera_frames_per_second", "Frames decoded a second.")
        counters = {
            "frames": self._counter("camera_frames", "Frames decoded."),
            "dropped": self._counter("camera_dropped", "Frames replaced by fresher ones."),
            "reconnects": self._counter("camera_reconnects", "Connections after the first."),
        }
        results = self._counter("results", "Frames segmented.")
        skipped = self._counter("camera_skipped", "Fresh frames left out by the stride.")
        for camera in now.cameras:
            health = camera.health
            for one in State:
                state.add_metric([health.camera, one.value], float(health.state is one))
            if health.state in (State.WAITING, State.FROZEN) and health.fault is not None:
                fault.add_metric([health.camera, health.fault.value], 1.0)
            rate.add_metric([health.camera], health.rate_hz)
            for name, counter in counters.items():
                counter.add_metric([health.camera], getattr(health, name))
            results.add_metric([health.camera], camera.results)
            skipped.add_metric([health.camera], camera.skipped)
        yield from (state, fault, rate, *counters.values(), results, skipped)

    def _places(self, now: Snapshot) -> Iterator[Any]:
        inside = self._gauge("zone_inside", "Objects in the zone now.", "place")
        passed = self._core.CounterMetricFamily(
            f"{_PREFIX}_passages",
            "Entries into and exits from a zone, or crossings of a line.",
            labels=["camera", "place", "direction"],
        )
        for camera in now.cameras:
            name = camera.health.camera
            for tally in camera.tallies:
                if tally.inside is not None:
                    inside.add_metric([name, tally.place], tally.inside)
                passed.add_metric([name, tally.place, "in"], tally.ins)
                passed.add_metric([name, tally.place, "out"], tally.outs)
        yield from (inside, passed)

    def _ages(self, now: Snapshot) -> Iterator[Any]:
        family = self._core.HistogramMetricFamily(
            f"{_PREFIX}_age_seconds",
            "From a frame's arrival to its result, over the whole run.",
            labels=["camera"],
        )
        recent = self._gauge(
            "recent_age_seconds", "The same over the last seconds, by percentile.", "percentile"
        )
        for camera in now.cameras:
            name = camera.health.camera
            family.add_metric([name], _buckets(camera.age_run), camera.age_run.sum_s)
            if camera.age.count:
                for word in ("p50", "p95", "p99"):
                    recent.add_metric([name, word], getattr(camera.age, f"{word}_s"))
        yield from (family, recent)

    def _run(self, now: Snapshot) -> Iterator[Any]:
        stages = self._core.GaugeMetricFamily(
            f"{_PREFIX}_stage_seconds",
            "Time of a stage over the last seconds, by percentile.",
            labels=["stage", "percentile"],
        )
        for stage, times in now.stages.items():
            for word in ("p50", "p95", "p99"):
                stages.add_metric([stage.value, word], getattr(times, f"{word}_s"))
        yield stages
        plain = {
            "stride": ("Every how many fresh frames one is segmented.", now.setting.stride),
            "short_side_pixels": ("Short side of the network's input.", now.setting.short_side),
            "mask_refresh": ("In every how many frames masks are made.", now.setting.refresh),
            "age_limit_seconds": ("Age the governor keeps; 0 without.", now.limit_s or 0.0),
        }
        for name, (help_text, value) in plain.items():
            yield self._core.GaugeMetricFamily(f"{_PREFIX}_{name}", help_text, value=value)

    def _sinks(self, now: Snapshot) -> Iterator[Any]:
        families = {
            word: self._core.CounterMetricFamily(
                f"{_PREFIX}_sink_{word}", f"Results {word} by an output.", labels=["sink"]
            )
            for word in ("written", "dropped", "failed")
        }
        failing = self._core.GaugeMetricFamily(
            f"{_PREFIX}_sink_failing", "1 while an output fails or hangs.", labels=["sink"]
        )
        for sink in now.sinks:
            for word, family in families.items():
                family.add_metric([sink.name], getattr(sink, word))
            failing.add_metric([sink.name], float(sink.failing or sink.stuck_s > 1))
        yield from (*families.values(), failing)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Any:
        return self._core.GaugeMetricFamily(
            f"{_PREFIX}_{name}", help_text, labels=["camera", *labels]
        )

    def _counter(self, name: str, help_text: str) -> Any:
        return self._core.CounterMetricFamily(f"{_PREFIX}_{name}", help_text, labels=["camera"])


def _buckets(ages: RunningPercentiles) -> list[tuple[str, float]]:
    counts = [(str(bound), float(ages.up_to(bound))) for bound in _BUCKETS_S]
    return [*counts, ("+Inf", float(ages.count))]


class MetricsServer:
    """Answers at ``http://127.0.0.1:PORT/metrics``, from a thread of its own.

    Args:
        port: 0 for a free one.
        read: the run as it is now.

    Raises:
        MissingPackageError: prometheus-client is not installed.
        SinkError: the port is taken.
    """

    def __init__(self, port: int, read: Callable[[], Snapshot]) -> None:
        client: Any = require("prometheus_client", extra="metrics", why="serve metrics")
        core: Any = require("prometheus_client.core", extra="metrics", why="serve metrics")
        registry = client.CollectorRegistry()
        for usual in (client.ProcessCollector, client.PlatformCollector, client.GCCollector):
            usual(registry=registry)
        registry.register(_Collector(core, read))
        try:
            self._server, self._thread = client.start_http_server(
                port, addr=_ADDRESS, registry=registry
            )
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SinkError(
                f"--metrics {port}: cannot listen on {_ADDRESS}: {reason}; take another port"
            ) from None
        self.address = f"http://{_ADDRESS}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stops answering; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
