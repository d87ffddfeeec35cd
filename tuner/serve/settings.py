"""How an artifact is served: what the command line may say of it."""

import ipaddress
import math
import os
import ssl
from dataclasses import dataclass

from tuner.errors import RequestError

KEY_VARIABLE = "TUNE_API_KEY"


@dataclass(frozen=True)
class Settings:
    """`latency_ms` is the declared limit (None: that of the study, if it had one), `queue_ms` the longest predicted
    latency of a request that is accepted (None: twice the limit), `wait_ms` a fixed longest wait of a batch that is not
    full in place of one that adapts.

    `grpc_port` is where it answers over gRPC too. `timeout_s` limits a whole request, the reading of its body too;
    `body_mb` its size (None: what a whole batch takes as JSON). `cache_mb` and `cache_s` bound the output cache, which
    0 turns off. `tls_ca` asks each client for a certificate that it signed. Times are in ms or s as the names say,
    sizes in MB of 10^6 bytes.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    name: str | None = None
    latency_ms: float | None = None
    queue_ms: float | None = None
    wait_ms: float | None = None
    timeout_s: float = 30.0
    drain_s: float = 30.0
    body_mb: float | None = None
    cache_mb: float = 0.0
    cache_s: float = 60.0
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        for key in ("latency_ms", "queue_ms", "timeout_s", "drain_s", "body_mb", "cache_s"):
            if getattr(self, key) is not None and not 0 < getattr(self, key) < math.inf:
                raise RequestError(f"{option(key)} {getattr(self, key):g} must be a number of more than 0")
        for key in ("cache_mb", "wait_ms"):
            if getattr(self, key) is not None and not 0 <= getattr(self, key) < math.inf:
                raise RequestError(f"{option(key)} {getattr(self, key):g} must be a number, 0 or more")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise RequestError("--tls-certificate and --tls-key belong together; give both")
        if self.tls_ca is not None and self.tls_certificate is None:
            raise RequestError("--tls-ca asks clients for a certificate, and needs --tls-certificate and --tls-key too")
        if self.tls_certificate is not None:
            self._read_certificates()

    def _read_certificates(self) -> None:
        """Before a model is loaded for minutes. Raises RequestError where they cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.tls_certificate or "", self.tls_key)
        except OSError as error:  # a missing file, or ssl's own
            raise RequestError(
                f"--tls-certificate {self.tls_certificate} and --tls-key {self.tls_key} cannot be used: "
                f"{error.strerror or error}"
            ) from error
        if self.tls_ca is not None:
            try:
                context.load_verify_locations(self.tls_ca)
            except OSError as error:
                raise RequestError(f"--tls-ca {self.tls_ca} cannot be used: {error.strerror or error}") from error

    @property
    def api_key(self) -> str | None:
        """What a client must show. Raises RequestError where anyone on the network could ask."""
        key = os.environ.get(KEY_VARIABLE) or None
        if key is None and self.tls_ca is None and not self._is_loopback():
            raise RequestError(
                f"--host {self.host} is open to the network: set {KEY_VARIABLE}, or give --tls-ca, or leave out --host"
            )
        return key

    def _is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def option(key: str) -> str:
    """A field as the command line has it."""
    return f"--{key.replace('_', '-')}"
