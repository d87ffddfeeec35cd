"""Who may ask, over TLS: a client shows a certificate that the server's authority signed, or is not let in."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import requests
import trustme

from tests.serve.serving import OPTIONS, asked, encoded, packaged, sample, serving
from tests.servers import free_port

pytestmark = pytest.mark.xdist_group("serve")


class Pair(NamedTuple):
    certificate: str
    key: str


def pair(authority: trustme.CA, name: str, folder: Path) -> Pair:
    """A certificate for that name, and its key."""
    made = authority.issue_cert(name)
    files = Pair(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    for index, blob in enumerate(made.cert_chain_pems):
        blob.write_to_path(files.certificate, append=index > 0)
    made.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def client(authority: trustme.CA, tmp_path: Path) -> Pair:
    return pair(authority, "client.test", tmp_path)


@pytest.fixture
def strangers(tmp_path: Path) -> Pair:
    """Of an authority that the server does not know."""
    return pair(trustme.CA(), "stranger.test", tmp_path)


@pytest.fixture
def options(authority: trustme.CA, ca: str, tmp_path: Path) -> tuple[str, ...]:
    server = pair(authority, "127.0.0.1", tmp_path)
    return (*OPTIONS, "--tls-certificate", server.certificate, "--tls-key", server.key, "--tls-ca", ca)


def test_a_client_without_a_certificate_of_the_authority_is_not_let_in(
    tmp_path: Path, options: tuple[str, ...], ca: str, client: Pair, strangers: Pair
) -> None:
    """On every interface, without an API key: the certificate is enough."""
    folder = packaged(tmp_path / "artifact")
    with serving(folder, "--host", "0.0.0.0", *options, tls={"verify": ca, "cert": client}) as served:
        assert served.address.startswith("https://")
        assert asked(served, 3, verify=ca, cert=client).status_code == 200
        body, headers = encoded(sample(3))
        for certificate in (None, strangers):
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.post(served.infer, body, headers=headers, timeout=30, verify=ca, cert=certificate)
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.post(served.infer.replace("https", "http"), body, headers=headers, timeout=30)
        assert asked(served, 4, verify=ca, cert=client).status_code == 200


def test_grpc_asks_for_the_certificate_too(
    tmp_path: Path, options: tuple[str, ...], ca: str, client: Pair, strangers: Pair
) -> None:
    triton = pytest.importorskip("tritonclient.grpc")
    port = free_port()
    folder = packaged(tmp_path / "artifact")
    with serving(folder, *options, "--grpc-port", str(port), tls={"verify": ca, "cert": client}):

        def answer(certificate: Pair) -> np.ndarray:
            with triton.InferenceServerClient(
                f"127.0.0.1:{port}",
                ssl=True,
                root_certificates=ca,
                certificate_chain=certificate.certificate,
                private_key=certificate.key,
            ) as grpc:
                tensor = triton.InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
                array: np.ndarray = grpc.infer("model", [tensor], client_timeout=20).as_numpy("output_0")
                return array

        assert answer(client).shape == (1, 3)
        with pytest.raises(triton.InferenceServerException):
            answer(strangers)
