"""What the server counts, for Prometheus. Every request ends under exactly one `outcome`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
OUTCOMES = ("answered", "invalid", "refused", "cancelled", "timeout", "failed")
"""Of requests: `invalid` ones got a 4xx, `refused` ones found the queue full or the server ending, `cancelled` ones'
clients went, `failed` ones got a 500."""


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, batch_size: int) -> None:
        self._registry = registry = CollectorRegistry()
        sizes = sorted({2**n for n in range(batch_size.bit_length())} | {batch_size})
        requests = Counter("tune_serve_requests", "Requests by how they ended", ["outcome"], registry=registry)
        self.requests = {outcome: requests.labels(outcome) for outcome in OUTCOMES}
        self.received = Counter("tune_serve_received", "Requests whose header was read", registry=registry)
        self.samples = Counter("tune_serve_samples", "Samples that were answered", registry=registry)
        self.batches = Histogram("tune_serve_batch_samples", "Samples in a call", buckets=sizes, registry=registry)
        stages = Histogram("tune_serve_seconds", "Seconds by stage", ["stage"], buckets=_SECONDS, registry=registry)
        self.stages = {stage: stages.labels(stage) for stage in ("queue", "call", "total")}
        self.queued = Gauge("tune_serve_queued_samples", "Samples that wait", registry=registry)
        self.predicted = Gauge(
            "tune_serve_predicted_seconds", "Latency foretold to the last request", registry=registry
        )
        self.ready = Gauge("tune_serve_replicas_ready", "Replicas that answer", registry=registry)
        self.deaths = Counter("tune_serve_replica_deaths", "Replicas that died and were begun anew", registry=registry)
        self.retried = Counter("tune_serve_retried", "Requests that were in a batch with them", registry=registry)
        cached = Counter("tune_serve_cache", "Look-ups in the output cache", ["found"], registry=registry)
        self.cached = {found: cached.labels(str(found).lower()) for found in (True, False)}
        self.cache_bytes = Gauge("tune_serve_cache_bytes", "Bytes of the output cache", registry=registry)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        text: bytes = generate_latest(self._registry)
        return text
