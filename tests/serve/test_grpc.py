"""The server over gRPC: Triton's own client, what is refused, and the account of it."""

import queue
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.fakes import Waking
from tests.serve.serving import OPTIONS, Served, asked, packaged, serving
from tests.servers import free_port

grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
pytestmark = pytest.mark.xdist_group("serve")
KEY = "of the test"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    folder = packaged(tmp_path_factory.mktemp("served") / "artifact", replicas=2)
    port = free_port()
    with serving(folder, *OPTIONS, "--grpc-port", str(port)) as server:
        yield server, f"127.0.0.1:{port}"


@pytest.fixture
def client(served: tuple[Served, str]) -> Iterator[Any]:
    with triton.InferenceServerClient(served[1]) as made:
        yield made


def tensor(array: Any, name: str = "x", datatype: str = "FP32") -> Any:
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_tritons_client_talks_to_it(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("model", "1")
    assert client.get_server_metadata(as_json=True)["name"] == "tune serve"
    metadata = client.get_model_metadata("model", as_json=True)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert metadata["outputs"] == [{"name": "output_0", "datatype": "FP32", "shape": ["-1", "3"]}]
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for outputs in (None, [triton.InferRequestedOutput("output_0")]):
        answer = client.infer("model", [tensor(array)], outputs=outputs, request_id="mine")
        assert answer.get_response().id == "mine"
        assert (answer.as_numpy("output_0") == array[:, :3]).all()


def test_values_may_be_told_one_by_one(served: tuple[Served, str]) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(served[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="model")
        given = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        given.contents.fp32_contents.extend([1, 2, 3, 4])
        (raw,) = stub.ModelInfer(request).raw_output_contents
        assert np.frombuffer(raw, np.float32).tolist() == [1, 2, 3]
        given.contents.fp32_contents.append(5)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "5 values" in caught.value.details()


def test_what_cannot_be_answered_gets_a_code_and_a_sentence(client: Any) -> None:
    four = np.zeros((1, 4), np.float32)
    for model, inputs, code, said in (
        ("other", [tensor(four)], "NOT_FOUND", "'other'"),
        ("model", [tensor(four, "y")], "INVALID_ARGUMENT", "takes ['x']"),
        ("model", [tensor(np.zeros((9, 4), np.float32))], "INVALID_ARGUMENT", "1…8"),
        ("model", [tensor(four.astype(np.float64), datatype="FP64")], "INVALID_ARGUMENT", "float32"),
        ("model", [tensor(four), tensor(four)], "INVALID_ARGUMENT", "twice"),
    ):
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer(model, inputs)
        assert code in str(caught.value.status()) and said in caught.value.message()
    with pytest.raises(triton.InferenceServerException, match="output_0"):
        client.infer("model", [tensor(four)], outputs=[triton.InferRequestedOutput("nothing")])


def test_its_requests_share_batches_and_the_account_with_those_over_http(served: tuple[Served, str]) -> None:
    server, address = served
    before, calls = server.outcomes(), server.counts()["tune_serve_batch_samples_count"]

    def over_grpc(number: int) -> None:
        with triton.InferenceServerClient(address) as own:
            for _ in range(20):
                array = np.full((1, 4), number, np.float32)
                assert (own.infer("model", [tensor(array)]).as_numpy("output_0") == number).all()

    def over_http(number: int) -> None:
        for _ in range(20):
            assert asked(server, number).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(way, number) for number in range(4) for way in (over_grpc, over_http)]
        for each in asking:
            each.result(60)
    counted = server.outcomes()
    assert counted["answered"] - before.get("answered", 0) == 160
    assert {k: v for k, v in counted.items() if k != "answered"} == {k: v for k, v in before.items() if k != "answered"}
    assert server.counts()["tune_serve_batch_samples_count"] - calls < 160, "each was a call of its own"


@pytest.mark.slow
def test_who_goes_is_counted_and_what_was_accepted_is_answered_at_the_end(tmp_path: Any) -> None:
    port = free_port()
    folder = packaged(tmp_path / "artifact", Waking(1500.0))
    with (
        serving(folder, "--quiet", "--latency-ms", "5000", "--grpc-port", str(port)) as server,
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
        ThreadPoolExecutor(1) as pool,
    ):
        one = tensor(np.ones((1, 4), np.float32))
        answers: queue.Queue[Any] = queue.Queue()
        asked_first = client.async_infer("model", [one], lambda result, error: answers.put(error))
        until(lambda: server.counts()["tune_serve_received_total"] == 1)
        asked_first.cancel()
        assert "CANCELLED" in str(answers.get(timeout=10).status())
        until(lambda: server.outcomes().get("cancelled") == 1)
        waiting = pool.submit(client.infer, "model", [one])
        until(lambda: server.counts()["tune_serve_received_total"] == 2)
        server.process.send_signal(signal.SIGTERM)
        assert (waiting.result(30).as_numpy("output_0") == 1).all()
        assert server.process.wait(30) == 0


def test_what_it_has_not_is_refused(client: Any) -> None:
    array = np.zeros((1, 4), np.float32)
    classes = [triton.InferRequestedOutput("output_0", class_count=1)]
    with pytest.raises(triton.InferenceServerException, match="classification is an extension"):
        client.infer("model", [tensor(array)], outputs=classes)
    elsewhere = triton.InferInput("x", array.shape, "FP32")
    elsewhere.set_shared_memory("region", array.nbytes)
    with pytest.raises(triton.InferenceServerException, match="shared_memory_region is an extension"):
        client.infer("model", [elsewhere])


def test_who_shows_no_key_is_refused(tmp_path: Any) -> None:
    port = free_port()
    options = (*OPTIONS, "--grpc-port", str(port))
    artifact = packaged(tmp_path / "artifact")
    with (
        serving(artifact, *options, env={"TUNE_API_KEY": KEY}),
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        array = np.ones((1, 4), np.float32)
        assert client.is_server_live()
        with pytest.raises(triton.InferenceServerException, match="API key"):
            client.infer("model", [tensor(array)])
        headers = {"authorization": f"Bearer {KEY}"}
        assert client.infer("model", [tensor(array)], headers=headers).as_numpy("output_0").shape == (1, 3)
