"""docs/bring-your-own-model.md from top to bottom: its files are written, its commands run, its Python answers.

What the page's reader has (a network, samples, pictures, a table, a pipeline, a folder of transformers) is made first.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import keras_files, study
from tests.conftest import with_store
from tuner.cli import main

PAGE = (study.ROOT / "docs/bring-your-own-model.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
FILES = {m.group(1): text for _, text in BLOCKS if (m := re.match(r"# (\S+\.(?:py|yaml))\n", text))}
SNIPPETS = [text for kind, text in BLOCKS if kind == "python" and not re.match(r"# \S+\.py\n", text)]
COMMANDS = [
    command
    for kind, text in BLOCKS
    if not kind
    for command in text.replace("\\\n", " ").splitlines()
    if command.startswith("tune ")
]
SHORT = ["n_trials=1", "timeout_s=30", "trial.measure_s=0.1", "latency_ms=1000", "target.threads=1"]  # as fast as it is
OWN = ["search_space.batch_size=[4]"]
SPACE = ["hydra.searchpath=[file://tuning]", "search_space=small"]
NEEDS = {"model=sklearn": "skl2onnx", "model=transformers": "transformers"}
MADE = """
import json
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image
from sklearn.datasets import load_digits

import mynet
import training

pixels, labels = load_digits(return_X_y=True)
images = (pixels / 16).astype("float32").reshape(-1, 1, 8, 8)
for name, rows in (("calibration", slice(700, 800)), ("training", slice(800, 1797))):
    np.savez(f"{name}.npz", image=images[rows], label=labels[rows])
net = training.fresh()
training.train(net, [({"image": i}, n) for i, n in zip(images[800:], labels[800:])], lambda *_: None)
net.eval()
torch.save(net.state_dict(), "net.pt")
free = {"image": {0: torch.export.Dim("batch")}}
sample = torch.zeros(2, 1, 8, 8)
torch.export.save(torch.export.export(net, (sample,), dynamic_shapes=free), "net.pt2")
graph = torch.onnx.export(net, (sample,), input_names=["image"], dynamic_shapes=free, external_data=False)
graph.save("net.onnx")
for n in range(200):
    folder = Path("pictures") / str(labels[n])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((images[n, 0] * 255).astype("uint8")).save(folder / f"{n}.png")
features = np.random.default_rng(0).normal(size=(600, 5)).astype("float32")
churn = (features[:, 0] + features[:, 1] > 0.5).astype(int)
pandas.DataFrame(features, columns=list("abcde")).assign(churn=churn).to_csv("eval.csv", index=False)
try:
    import joblib
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    pipeline = LogisticRegression().fit(features, churn)
    joblib.dump(pipeline, "churn.joblib")
except ImportError:
    pass
table = torch.nn.Sequential(torch.nn.Linear(5, 1), torch.nn.Sigmoid())
with torch.no_grad():
    table[0].weight.copy_(torch.tensor([[9.0, 9, 0, 0, 0]]))
    table[0].bias.fill_(-4.5)
torch.onnx.export(
    table, (torch.zeros(2, 5),), input_names=["x"], dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True,
    external_data=False,
).save("churn.onnx")
try:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "good", "bad", "so", "it", "is"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained("folder")
    config = transformers.BertConfig(
        vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        type_vocab_size=1,
    )
    torch.manual_seed(1)
    transformers.BertModel(config).save_pretrained("folder")
    rng = np.random.default_rng(0)
    lines = [{"sentence": " ".join(rng.choice(words[2:], rng.integers(2, 9)))} for n in range(64)]
    Path("eval.jsonl").write_text("\\n".join(map(json.dumps, lines)))
except ImportError:
    pass
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Path]:
    """A folder with all that the page's reader has."""
    folder = with_store(tmp_path_factory.mktemp("reader"), shared, out="outputs")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "made.py").write_text(MADE + "images, labels = images[:700], labels[:700]\n" + SNIPPETS[0])
    python(folder, "made.py")
    yield folder


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    variables = os.environ | {"PYTHONPATH": "."}
    ran = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=variables)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def test_the_page_has_what_is_tested() -> None:
    assert len(COMMANDS) >= 14 and len(SNIPPETS) == 2 and len(FILES) >= 8


@pytest.fixture
def standing(reader: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process finds what lies in that folder, as the reader does, and forgets it again."""
    before = set(sys.modules)
    monkeypatch.chdir(reader)
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.syspath_prepend(str(reader))
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(reader)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_does_what_it_says(
    command: str, reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked, library in NEEDS.items():
        if asked in command:
            pytest.importorskip(library)
    if any(kind in command for kind in ("model=keras", "model=tflite")):
        if not keras_files.there():
            pytest.skip("no environment of TensorFlow is kept here")
        if not (reader / "net.keras").exists():
            keras_files.made(reader)
    arguments = shlex.split(command)[1:]
    if "inspect" not in arguments:
        arguments += SHORT if "target=onecore" not in command else SHORT[:-1]
        arguments += OWN if "search_space=small" in command else [*SPACE, *OWN]
    code, said = main(arguments), capsys.readouterr()
    assert code == 0, said.err
    assert ("taken by" if "inspect" in arguments else "candidates: ") in said.out


@pytest.mark.slow
def test_what_was_made_answers(reader: Path) -> None:
    """Runs after the commands: the last of them made it."""
    champion = reader / "outputs/mynet-onecore-001/champion"
    if not champion.exists():
        pytest.skip("it is made by the commands before")
    (reader / "used.py").write_text(SNIPPETS[1])
    size, shape = python(reader, "used.py").stdout.splitlines()
    manifest: dict[str, Any] = json.loads((champion / "manifest.json").read_text())
    assert int(size) == manifest["candidate"]["batch_size"] and shape == "(3, 10)"
