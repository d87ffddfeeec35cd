"""Models as scikit-learn and transformers keep them: converted, compared with the original, never unpickled unasked."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from tuner.build.prepare import Prepared, prepare
from tuner.build.store import Store
from tuner.dataset import Dataset, batches, evaluation
from tuner.errors import RequestError
from tuner.model import ModelSource
from tuner.plugins.backends.eager import Eager
from tuner.plugins.datasets.image_folder import ImageFolder
from tuner.plugins.datasets.npz import Npz
from tuner.plugins.datasets.table import Table
from tuner.plugins.datasets.texts import Texts
from tuner.plugins.models.efficientnet_lite0 import EfficientNetLite0
from tuner.plugins.models.sklearn_pipeline import SklearnModel
from tuner.plugins.models.timm_network import TimmModel
from tuner.plugins.models.transformers_folder import TransformersModel
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.tensors import FreeSpec
from tuner.workload import Workload

CPU = Target("cpu", "cpu", threads=1)
X = np.random.default_rng(0).normal(size=(300, 5)).astype("float32")
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(model: ModelSource, dataset: Dataset, folder: Path) -> Prepared:
    store = Store(folder / "cache")
    for path in (store.root, folder / "model"):
        path.mkdir()
    launcher = Launcher(4000.0, CPU.environment, store.environments)
    return prepare(Workload(model, dataset), store, folder / "model", launcher, lambda *_: None)


def whole(ready: Prepared) -> dict[str, Any]:
    samples = evaluation(ready.workload.dataset)
    return next(batches(samples, len(samples)))[0]


def by_onnxruntime(ready: Prepared) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(ready.source.model.path), providers=["CPUExecutionProvider"])
    return list(session.run(None, whole(ready)))


# --- scikit-learn


def test_a_pipeline_answers_as_it_did(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=20)).fit(X, Y)
    joblib.dump(pipeline, "churn.joblib")
    pandas.DataFrame(X, columns=list("abcde")).assign(label=Y).to_csv("eval.csv", index=False)
    ready = prepared(SklearnModel("churn.joblib", trust=True), Table("eval.csv"), tmp_path)
    label, probabilities = by_onnxruntime(ready)
    (given,) = whole(ready).values()
    assert np.array_equal(label, pipeline.predict(given))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(given), atol=1e-5)


def test_columns_reach_the_step_that_looks_them_up(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame = pandas.DataFrame(X, columns=list("abcde"))
    pipeline = make_pipeline(ColumnTransformer([("scaled", StandardScaler(), ["b", "a"])]), Ridge())
    joblib.dump(pipeline.fit(frame, X[:, 0] * 2 + X[:, 1]), "price.joblib")
    frame.assign(price=X[:, 0] * 2 + X[:, 1]).to_csv("eval.csv", index=False)
    ready = prepared(SklearnModel("price.joblib", trust=True), Table("eval.csv", label="price"), tmp_path)
    inputs = whole(ready)
    right = pipeline.predict(pandas.DataFrame({name: array[:, 0] for name, array in inputs.items()}))
    np.testing.assert_allclose(by_onnxruntime(ready)[0][:, 0], right, atol=1e-4)


def test_a_pipeline_that_was_fitted_on_named_columns_gets_those_wherever_they_stand(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = ["age", "income", "tenure"]
    frame = pandas.DataFrame(X[:, :3] * [1, 10, 100], columns=names)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y)
    joblib.dump(pipeline, "churn.joblib")
    shuffled = frame[["tenure", "age", "income"]].assign(id=range(len(frame)), churn=Y)
    shuffled.to_csv("eval.csv", index=False)
    model, samples = SklearnModel("churn.joblib", trust=True), Table("eval.csv", label="churn")
    label, _ = by_onnxruntime(ready := prepared(model, samples, tmp_path))
    assert list(whole(ready)) == ["x"]
    rows = samples._dealt(len(frame))["evaluation"]
    assert np.array_equal(label, pipeline.predict(frame.iloc[rows]))
    shuffled.drop(columns="income").to_csv("eval.csv", index=False)
    with pytest.raises(RequestError, match=r"has no column 'income'; it has tenure, age, id, churn"):
        Table("eval.csv", label="churn").fitting(model.declares()).load("evaluation")


def test_columns_by_number_are_those_of_the_array_that_it_was_fitted_on(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scaled = ColumnTransformer([("scaled", StandardScaler(), [0, 1]), ("rest", "passthrough", [3])])
    search = GridSearchCV(make_pipeline(scaled, Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=2)
    joblib.dump(search.fit(X, X[:, 0] * 2 + X[:, 3]), "price.joblib")
    pandas.DataFrame(X).assign(label=X[:, 0] * 2 + X[:, 3]).to_csv("eval.csv", index=False)
    ready = prepared(SklearnModel("price.joblib", trust=True), Table("eval.csv"), tmp_path)
    np.testing.assert_allclose(by_onnxruntime(ready)[0][:, 0], search.predict(whole(ready)["x"]), atol=1e-4)


def test_classes_that_are_texts_are_numbered_as_the_pipeline_has_them(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = np.array(["stays", "leaves"])[Y]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, names)
    joblib.dump(pipeline, "churn.joblib")
    pandas.DataFrame(X).assign(label=names).to_csv("eval.csv", index=False)
    ready = prepared(SklearnModel("churn.joblib", trust=True), Table("eval.csv"), tmp_path)
    (probabilities,) = by_onnxruntime(ready)
    samples = evaluation(ready.workload.dataset)
    inputs, labels = next(batches(samples, len(samples)))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(inputs["x"]), atol=1e-5)
    right = pipeline.score(inputs["x"], pipeline.classes_[labels])
    assert (probabilities.argmax(1) == labels).mean() == right > 0.6


def test_what_is_missing_goes_to_a_pipeline_that_takes_it_and_to_no_other(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    holes = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.float32(np.nan), X)
    pandas.DataFrame(holes).assign(label=Y).to_csv("eval.csv", index=False)
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(holes, Y)
    joblib.dump(pipeline, "takes.joblib")
    ready = prepared(SklearnModel("takes.joblib", trust=True), Table("eval.csv"), tmp_path)
    assert np.isnan(given := whole(ready)["x"]).any()
    assert np.array_equal(by_onnxruntime(ready)[0], pipeline.predict(given))
    # StandardScaler lets it through, and what follows does not take it
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), "refuses.joblib")
    (spec,) = SklearnModel("refuses.joblib", trust=True).declares()
    with pytest.raises(RequestError, match=r"column '\d' has no value in row"):
        Table("eval.csv").fitting((spec,)).load("evaluation")


class Boom:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran.txt"),)


def test_nothing_is_unpickled_without_trust(tmp_path: Path) -> None:
    import joblib

    joblib.dump(Boom(), "net.joblib")
    with pytest.raises(RequestError, match=r"model\.trust=true"):
        SklearnModel("net.joblib")
    assert not Path("ran.txt").exists()
    np.savez("eval.npz", x=X, label=Y)
    Path("text.joblib").write_text("no pickle")
    for file, message in (("text.joblib", "does not load"), ("net.joblib", "which predicts nothing")):
        with pytest.raises(RequestError, match=message):
            SklearnModel(file, trust=True)._loaded()


# --- transformers


def tokenizer_folder(folder: Path) -> int:
    """A tokenizer as its library saves it, of so many words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "good", "bad", "so", "it", "is", "None", "5"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    return len(words)


def text_folder(folder: Path) -> None:
    """A classifier of texts with a tokenizer, both as their libraries save them."""
    count = tokenizer_folder(folder)
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=count, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        type_vocab_size=1, num_labels=3,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)


@pytest.mark.slow
def test_a_folder_of_transformers_answers_as_the_library_does(tmp_path: Path) -> None:
    text_folder(tmp_path / "net")
    import torch
    import transformers

    texts = ["so it is good", "bad"] * 5
    Path("eval.jsonl").write_text("\n".join(json.dumps({"text": text, "label": n % 3}) for n, text in enumerate(texts)))
    samples = Texts("eval.jsonl", format="jsonl", tokenizer="net", length=6)
    ready = prepared(TransformersModel("net"), samples, tmp_path)
    inputs, model = whole(ready), ready.source.model
    assert list(inputs) == ["input_ids", "attention_mask"] and inputs["input_ids"].shape == (8, 6)
    original = transformers.AutoModelForSequenceClassification.from_pretrained("net").eval()
    with torch.no_grad():
        right = original(**{name: torch.tensor(array) for name, array in inputs.items()}).logits.numpy()
    (tmp_path / "eager").mkdir()
    Eager().compile(model, 8, CPU, tmp_path / "eager", tmp_path)
    (answered,) = Eager().load(tmp_path / "eager", model.inputs, 8, CPU).run(inputs)
    np.testing.assert_allclose(answered, right, atol=1e-5)


def test_texts_are_what_stands_there_and_what_is_missing_is_refused(tmp_path: Path) -> None:
    tokenizer_folder(tmp_path / "net")
    Path("eval.csv").write_text("text,label\n" + "None,0\n5,1\n" * 2)
    Path("eval.jsonl").write_text('{"text": "None", "label": 0}\n{"text": "5", "label": 1}\n' * 2)
    for kind in ("csv", "jsonl"):
        inputs, _ = next(batches(evaluation(Texts(f"eval.{kind}", format=kind, tokenizer="net", length=2)), 4))  # type: ignore[arg-type]
        assert inputs["input_ids"].tolist() == [[7, 0], [8, 0]] * 2
    for line, message in (("null", "has no value in row 5"), ("[1]", "holds list in row 5 of the data, not texts")):
        with Path("eval.jsonl").open("a") as file:
            file.write(f'{{"text": {line}, "label": 0}}\n')
        with pytest.raises(RequestError, match=message):
            Texts("eval.jsonl", format="jsonl", tokenizer="net").load("evaluation")
        Path("eval.jsonl").write_text("".join(Path("eval.jsonl").read_text().splitlines(True)[:4]))
    Path("eval.csv").write_text("text,label\ngood,0\n,1\n")
    with pytest.raises(RequestError, match="column 'text' has no value in row 2 of the data"):
        Texts("eval.csv", format="csv", tokenizer="net").load("evaluation")


def test_tokens_are_of_the_models_dtype_and_an_input_that_is_no_token_is_told(tmp_path: Path) -> None:
    tokenizer_folder(tmp_path / "net")
    Path("eval.jsonl").write_text('{"text": "good", "label": 0}\n')
    samples = Texts("eval.jsonl", format="jsonl", tokenizer="net", length=2)
    names = {"input_ids": "int32", "attention_mask": "int64"}
    inputs, _ = evaluation(samples.fitting(tuple(FreeSpec(name, ("s",), dtype) for name, dtype in names.items())))[0]
    assert {name: array.dtype.name for name, array in inputs.items()} == names
    with pytest.raises(RequestError, match=r"makes input_ids, .*'input_word_ids' is none of them"):
        evaluation(samples.fitting((FreeSpec("input_word_ids", ("s",), "int32"),)))


# --- pictures


@pytest.mark.parametrize(
    ("said", "white"),
    [
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.2, 0.1]}, [1.0, 3.0, 7.0]),
        ({"image_mean": 0.5, "image_std": 0.25, "do_rescale": True, "rescale_factor": 1 / 255}, [2.0] * 3),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, [1.0] * 3),
        ({"image_mean": [5.0] * 3, "image_std": [10.0] * 3, "do_rescale": False}, [25.0] * 3),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5, "rescale_offset": True}, [1.0] * 3),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "include_top": True}, [2.0] * 3),
    ],
)
def test_pictures_are_normalised_as_the_folder_of_transformers_says(
    said: dict[str, Any], white: list[float], tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    Path("net/config.json").write_text(json.dumps({"image_size": 4, "num_channels": 3}))
    Path("net/preprocessor_config.json").write_text(json.dumps(said))
    normalised(TransformersModel("net"), white)


def test_pictures_are_normalised_as_timm_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("net.safetensors").touch()
    model = TimmModel("resnet18", "net.safetensors")
    declared = {"input_size": (3, 4, 4), "mean": (0.5, 0.4, 0.3), "std": (0.5, 0.2, 0.1)}
    timm = SimpleNamespace(create_model=lambda *_, **__: SimpleNamespace(default_cfg=declared))
    monkeypatch.setitem(sys.modules, "timm", timm)
    normalised(model, [1.0, 3.0, 7.0])


def test_pictures_are_normalised_as_the_bundled_classifier_was_trained(tmp_path: Path) -> None:
    normalised(EfficientNetLite0(), [1.0] * 3)


def normalised(model: ModelSource, white: list[float]) -> None:
    """What a white picture becomes, for that model; `dataset.mean` is preferred to what it declares."""
    Path("set").mkdir()
    Image.new("RGB", (4, 4), (255, 255, 255)).save("set/0.png")
    own = ImageFolder("set", mean=(0.0,), std=(1.0,))
    for samples, right in ((ImageFolder("set"), white), (own, [1.0] * 3)):
        loaded = samples.fitting(model.declares()).load("evaluation")
        assert loaded is not None
        (picture,) = loaded[0][0].values()
        np.testing.assert_allclose(picture[:, 0, 0], right, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransformersModel("."), "no folder with the config.json"),
        (lambda: Texts("eval.jsonl", format="jsonl", tokenizer="."), "dataset.tokenizer=.: no folder with a tokenizer"),
        (lambda: TimmModel("resnet18", "net.safetensors"), "model.weights=net.safetensors: no such file"),
        (lambda: SklearnModel("nowhere.joblib"), "model.path=nowhere.joblib: no such file"),
    ],
)
def test_what_is_not_there_is_named(make: Any, message: str) -> None:
    Path("eval.jsonl").write_text('{"text": "so", "label": 0}')
    with pytest.raises(RequestError) as refused:
        make()
    assert message in str(refused.value)


def test_another_number_of_npz_columns_is_told(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    import joblib
    from sklearn.linear_model import LogisticRegression

    joblib.dump(LogisticRegression().fit(X, Y), "net.joblib")
    np.savez("eval.npz", x=X[:, :4], label=Y)
    with pytest.raises(RequestError):
        prepared(SklearnModel("net.joblib", trust=True), Npz("eval.npz"), tmp_path)
