"""The bundled workloads: real data, dealt once; networks that really learn."""

import io
import pickle
import subprocess
import sys
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest
import torch

from tuner.dataset import ArraySamples, Dataset, Role
from tuner.errors import RequestError
from tuner.metrics import top1
from tuner.plugins.datasets.digits import Digits, DistortedDigits, scans
from tuner.plugins.models.digits_networks import cnn, resnet18, train_cnn, train_resnet18
from tuner.system.loader import build

ROLES: tuple[Role, ...] = get_args(Role)
DATASETS = [
    pytest.param(Digits(), (1, 8, 8), id="digits"),
    pytest.param(DistortedDigits(), (1, 32, 32), id="distorted"),
]


def accuracy(module: torch.nn.Module, samples: ArraySamples) -> float:
    with torch.no_grad():
        outputs = module.eval()(torch.from_numpy(samples.inputs["x"])).numpy()
    return float(top1([outputs], samples.labels).mean())


def silent(fraction: float, text: str) -> None:
    pass


def test_no_scan_has_two_roles_and_none_is_lost() -> None:
    dealt = {role: scans(role)[0] for role in ROLES}
    assert {role: len(images) for role, images in dealt.items()} == {
        "evaluation": 719,
        "calibration": 128,
        "training": 950,
    }
    seen = {role: {image.tobytes() for image in images} for role, images in dealt.items()}
    for one, other in combinations(ROLES, 2):
        assert not seen[one] & seen[other]


@pytest.mark.parametrize(("dataset", "shape"), DATASETS)
@pytest.mark.parametrize("role", ROLES)
def test_samples_are_what_the_networks_take(dataset: Any, shape: tuple[int, ...], role: Role) -> None:
    samples = dataset.load(role)
    inputs, label = samples[0]
    assert inputs["x"].shape == shape
    assert inputs["x"].dtype == np.float32
    assert label in range(10)
    assert len(samples) == len(samples.inputs["x"])
    counts = np.bincount(samples.labels)
    assert counts.min() > 0.8 * counts.mean(), "stratified by class"


@pytest.mark.parametrize(("dataset", "shape"), DATASETS)
def test_loading_again_gives_the_same_bits(dataset: Dataset, shape: tuple[int, ...]) -> None:
    for role in ROLES:
        first, again = dataset.load(role), pickle.loads(pickle.dumps(dataset)).load(role)
        assert np.array_equal(first.inputs["x"], again.inputs["x"])
        assert np.array_equal(first.labels, again.labels)


def test_each_copy_of_a_scan_is_distorted_in_its_own_way() -> None:
    clean = DistortedDigits(noise=0.0).load("training").inputs["x"]
    assert len(np.unique(clean.reshape(len(clean), -1), axis=0)) == len(clean)


def test_distortion_off_shows_the_scan() -> None:
    images, _ = scans("evaluation")
    shown = DistortedDigits(noise=0.0, rotation=0.0, shift=0.0).load("evaluation").inputs["x"][: len(images), 0]
    small = shown.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, small, strict=True)]
    assert np.median(correlation) > 0.9


def test_another_seed_gives_other_images() -> None:
    one, other = (DistortedDigits(seed=seed).load("calibration").inputs["x"] for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"training_copies": 0}])
def test_a_value_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"dataset.{next(iter(wrong))}"):
        build({"_target_": "tuner.plugins.datasets.digits.DistortedDigits", **wrong}, Dataset, "dataset")


def test_the_data_loads_without_torch() -> None:
    code = (
        "import sys; from tuner.plugins.datasets.digits import Digits, DistortedDigits;"
        "Digits().load('calibration'); DistortedDigits().load('calibration');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_cnn_learns_the_digits_and_survives_saving() -> None:
    reports: list[float] = []
    module = cnn()
    train_cnn(module, Digits().load("training"), lambda fraction, text: reports.append(fraction))
    evaluation = Digits().load("evaluation")
    reached = accuracy(module, evaluation)
    assert reached >= 0.975
    assert reports == sorted(reports)
    assert reports[-1] == pytest.approx(1)

    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert accuracy(torch.load(file, weights_only=False), evaluation) == reached


def test_training_again_gives_the_same_weights() -> None:
    training = Digits().load("training")
    short = ArraySamples({"x": training.inputs["x"][:128]}, training.labels[:128])
    first, again = cnn(), cnn()
    train_cnn(first, short, silent)
    torch.rand(3)  # the caller's random state has no say
    train_cnn(again, short, silent)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


@pytest.mark.slow
def test_the_resnet_learns_from_few_samples_and_reports_as_it_goes() -> None:
    training = DistortedDigits(training_copies=1).load("training")
    few = ArraySamples({"x": training.inputs["x"][:128]}, training.labels[:128])
    module, reports = resnet18(), []
    train_resnet18(module, few, lambda fraction, text: reports.append((fraction, text)))
    assert len(reports) >= 8
    assert reports[-1][0] == pytest.approx(1)
    assert "epoch 4 of 4" in reports[-1][1]
    assert not module.training
