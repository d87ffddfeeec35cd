"""Real pretrained models that packages carry, none of them trained here, each with samples of its own kind.

Each function writes `eval.npz` to a folder where the samples are not bundled, and says the command line that tunes the
model. None has labels, so accuracy is how like the float model's own answers others are; only `minilm` is judged by a
task, the retrieval of docstrings.
"""

import pydoc_data.topics
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real.weights import unpacked

COUNT = 480  # samples of each, a fifth of which calibrates
REAL: dict[str, Callable[[Path], list[str]]] = {}

_OCR = "rapidocr-onnxruntime==1.4.4"
_EDGE = 1024  # bytes of each end of a file that Magika looks at
_PADDING = 256


def real(build: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    REAL[build.__name__] = build
    return build


@real
def minilm(folder: Path) -> list[str]:
    """Encoder of texts: six layers of attention."""
    return ["model=minilm"]


@real
def efficientnet_lite0(folder: Path) -> list[str]:
    """Classifier of pictures, depthwise convolutions."""
    return ["model=efficientnet_lite0", f"dataset.count={COUNT}"]


@real
def ocr_detector(folder: Path) -> list[str]:
    """Where text is on a page: a map of probabilities."""
    return _onnx(folder, unpacked(_OCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"), x=_pages(256, 12))


@real
def ocr_recogniser(folder: Path) -> list[str]:
    """What a line of text says: a character of 6,625 at each of 40 places."""
    lines = _lines(48, 320)
    return _onnx(folder, unpacked(_OCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"), x=lines)


@real
def ocr_direction(folder: Path) -> list[str]:
    """Whether a line of text is upside down."""
    lines = _lines(48, 192)
    lines[::2] = lines[::2, :, ::-1, ::-1]
    path = unpacked(_OCR, "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    return _onnx(folder, path, x=lines)


@real
def nudenet(folder: Path) -> list[str]:
    """Detector: boxes and 18 classes of a YOLOv8, 320 pixels."""
    return _onnx(folder, unpacked("nudenet==3.4.2", "nudenet/320n.onnx"), images=(_photographs(320) + 1) / 2)


@real
def captcha_detector(folder: Path) -> list[str]:
    """Detector: a YOLOX that takes one picture at a time."""
    pictures = (_photographs(416)[:, ::-1] + 1) * 127.5
    return _onnx(folder, unpacked("ddddocr==1.6.1", "ddddocr/common_det.onnx"), images=pictures)


@real
def magika(folder: Path) -> list[str]:
    """The type of a file, of 214, from its first and last bytes."""
    files = islice(_files(), COUNT)
    ends = np.stack([np.concatenate([_end(data[:_EDGE], 0), _end(data[-_EDGE:], 1)]) for data in files])
    return _onnx(folder, unpacked("magika==1.0.3", "magika/models/standard_v3_3/model.onnx"), bytes=ends)


@real
def basic_pitch(folder: Path) -> list[str]:
    """Notes of two seconds of music."""
    path = unpacked("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx")
    return _onnx(folder, path, **{"serving_default_input_2:0": _music(43_844)})


def _onnx(folder: Path, path: Path, **inputs: NDArray[Any]) -> list[str]:
    np.savez(folder / "eval.npz", **inputs)  # type: ignore[arg-type]
    return ["model=onnx", f"model.path={path}", f"dataset.path={folder / 'eval.npz'}"]


def _photographs(size: int) -> NDArray[Any]:
    from tuner.plugins.datasets.photographs import Photographs

    samples = Photographs(count=COUNT, size=size).load("evaluation")
    assert samples is not None
    return np.asarray(samples.inputs["image"], np.float32)


def _sentences() -> Iterator[str]:
    """Words of Python's own manual, three to five at a time, for ever."""
    words = cycle(" ".join(pydoc_data.topics.topics.values()).split())
    random = np.random.default_rng(0)
    while True:
        yield " ".join(islice(words, int(random.integers(3, 6))))


def _lines(height: int, width: int) -> NDArray[Any]:
    """(count, 3, height, width) from -1 to 1: a line of text each, as a camera might see it."""
    return np.stack(
        [_written([text], height, width, height * 0.6, n) for n, text in enumerate(islice(_sentences(), COUNT))]
    )


def _pages(size: int, rows: int) -> NDArray[Any]:
    """(count, 3, size, size), as the means and spreads of ImageNet scale it: several lines of text each."""
    texts = _sentences()
    mean, spread = (np.array(v, np.float32)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pages = [_written(list(islice(texts, rows)), size, size, size / rows * 0.6, n) for n in range(COUNT // 2)]
    return np.stack([((page + 1) / 2 - mean) / spread for page in pages])


def _written(rows: list[str], height: int, width: int, font: float, seed: int) -> NDArray[Any]:
    """(3, height, width) from -1 to 1: rows of text in some colour on some other, tilted and noisy."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(seed)
    paper = tuple(int(c) for c in random.integers(150, 256, 3))
    ink = tuple(int(c) for c in random.integers(0, 100, 3))
    picture = Image.new("RGB", (width, height), paper)
    draw, letters = ImageDraw.Draw(picture), ImageFont.load_default(font * random.uniform(0.7, 1.1))
    for n, row in enumerate(rows):
        text = textwrap.shorten(row, 60, placeholder="")
        draw.text(
            (random.uniform(2, width / 10), (n + random.uniform(0, 0.3)) * height / len(rows)), text, ink, letters
        )
    turned = picture.rotate(random.uniform(-3, 3), fillcolor=paper, resample=Image.Resampling.BILINEAR)
    pixels = np.asarray(turned, np.float32) + random.normal(0, random.uniform(0, 12), (height, width, 3))
    return (np.clip(pixels, 0, 255) / 127.5 - 1).transpose(2, 0, 1).astype(np.float32)


def _files() -> Iterator[bytes]:
    """Files of this Python, of every suffix by turns."""
    by_suffix: dict[str, list[Path]] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.*")):
        if path.is_file() and path.stat().st_size > 2 * _EDGE:
            by_suffix.setdefault(path.suffix, []).append(path)
    longest = max(map(len, by_suffix.values()))
    return (paths[n].read_bytes() for n in range(longest) for paths in by_suffix.values() if n < len(paths))


def _end(data: bytes, last: int) -> NDArray[Any]:
    """One end of a file, without the blanks there; filled up at its inner side."""
    stripped = data.rstrip() if last else data.lstrip()
    filled = np.full(_EDGE, _PADDING, np.int32)
    place = slice(_EDGE - len(stripped), None) if last else slice(len(stripped))
    filled[place] = np.frombuffer(stripped, np.uint8)
    return filled


def _music(length: int) -> NDArray[Any]:
    """(count, length, 1): chords of plucked strings at 22,050 Hz, with some noise."""
    random, time_s = np.random.default_rng(0), np.arange(length) / 22_050
    pieces = []
    for _ in range(COUNT // 4):
        piece = random.normal(0, 0.003, length)
        for _ in range(int(random.integers(2, 9))):
            pitch, start = 55 * 2 ** (random.integers(0, 48) / 12), random.uniform(0, time_s[-1])
            sounding = np.clip(time_s - start, 0, None)
            for overtone in range(1, 6):
                swing = np.sin(2 * np.pi * pitch * overtone * sounding) / overtone
                piece += 0.1 * swing * np.exp(-3 * overtone * sounding) * (time_s >= start)
        pieces.append(piece)
    return np.stack(pieces)[:, :, None].astype(np.float32)
