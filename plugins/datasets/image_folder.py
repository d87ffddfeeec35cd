"""Pictures in a folder, one folder a class."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import Dataset, Role, Samples
from tuner.errors import RequestError
from tuner.roles import Split
from tuner.tensors import Arrays, FreeSpec

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}


@dataclass(frozen=True)
class ImageFolder(Split):
    """`path/CLASS/picture.png`: the classes are numbered from 0 in the order of the folders' names in `path`, the empty
    ones too, or as `classes` has them; for all roles alike. Pictures without such folders have no label.

    Each is scaled so that it covers `size` (height and width), cut to its middle, divided by 255, normalised by `mean`
    and `std` of each channel, and laid out as the model takes it: channels first, unless they are last there. What
    the model declares of its input sets `size` and the channels, and `mean` and `std` where they are not given. With a
    `preprocess` function, that gets the picture as it is: {"image": uint8 (height, width, channels)}.
    """

    size: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    input: str = "image"
    channels: int = 3
    channels_last: bool = False
    dtype: str = "float32"

    folders: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) not in (0, 2):
            raise RequestError(f"dataset.size={list(self.size)} must be [height,width]")
        if bool(self.mean) != bool(self.std):
            raise RequestError("dataset.mean and dataset.std go together: a number for each channel, of 0 to 1")

    def fitting(self, inputs: tuple[FreeSpec, ...]) -> Dataset:
        if len(inputs) != 1 or len(inputs[0].axes) != 3:
            return self
        (spec,) = inputs
        last = spec.axes[2] in (1, 3, 4) and spec.axes[0] not in (1, 3, 4)
        channels, height, width = (spec.axes[2], *spec.axes[:2]) if last else spec.axes
        fixed = self.size or tuple(axis for axis in (height, width) if isinstance(axis, int))
        known = channels if isinstance(channels, int) else self.channels
        return replace(
            self, input=spec.name, size=fixed if len(fixed) == 2 else (), channels=known, channels_last=last,
            dtype=spec.dtype, mean=self.mean or spec.mean, std=self.std or spec.std,
        )  # fmt: skip

    @property
    def numbered(self) -> int | None:
        return None if self.classes else len(_folders(Path(self.path))) or None

    def key(self) -> dict[str, Any]:
        return {**super().key(), "folders": _folders(Path(self.path))}  # their files do not tell of empty ones

    def read(self, path: Path, field: str, role: Role) -> Samples:
        files = sorted(file for file in path.rglob("*") if _is_picture(file.relative_to(path)))
        if not files:
            raise RequestError(f"{field}={path}: it has no pictures")
        names = [file.relative_to(path).parts[0] if len(file.relative_to(path).parts) > 1 else "" for file in files]
        if "" in names and len(set(names)) > 1:
            raise RequestError(
                f"{field}={path}: pictures lie in folders of their class, {files[names.index('')]} does not"
            )
        classes = list(self.classes) or _folders(Path(self.path)) or _folders(path)
        if unknown := sorted(set(names) - set(classes) - {""}):
            raise RequestError(
                f"dataset.classes: {field}={path} has a folder {unknown[0]!r}, which is none of them "
                f"({', '.join(classes)}); name all in the model's order: dataset.classes=[…]"
            )
        if self.preprocess is None:
            self._require_filling()
        labels = [float("nan") if not name else classes.index(name) for name in names]
        return Pictures(self, files, labels)

    def _require_filling(self) -> None:
        """Raises RequestError where nothing says how a picture becomes the model's input."""
        if not self.size:
            raise RequestError("dataset.size=[height,width] must be given: the model does not say it")
        if not {len(self.mean), len(self.std)} <= {0, 1, self.channels}:
            raise RequestError(
                f"dataset.mean={list(self.mean)} and dataset.std={list(self.std)}: give one number, or one for each of "
                f"{self.channels} channels"
            )
        whole = np.dtype(self.dtype).kind in "iub"
        if whole and self.dtype != "uint8":
            raise RequestError(
                f"dataset.preprocess must make {self.dtype} of a picture, for the model takes that: its scale and its "
                "zero point are not known here"
            )
        if whole and self.mean:
            raise RequestError(
                "dataset.mean and dataset.std: the model takes pictures as uint8, which are not normalised; leave them "
                "out, or normalise with dataset.preprocess"
            )


@dataclass(frozen=True)
class Pictures:
    """Read from disk when they are asked for."""

    how: ImageFolder
    files: list[Path]
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Arrays, Any]:
        """Raises RequestError where it is no picture."""
        from PIL import Image, UnidentifiedImageError

        how, file = self.how, self.files[index]
        try:
            with Image.open(file) as opened:
                picture = _of_eight_bits(opened, file).convert("L" if how.channels == 1 else "RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise RequestError(f"dataset: {file} is no picture that can be read; remove it") from error
        if how.preprocess is not None:
            return {"image": _channels(np.asarray(picture))}, self.labels[index]
        height, width = how.size
        scale = max(height / picture.height, width / picture.width)
        enlarged = (max(round(picture.width * scale), width), max(round(picture.height * scale), height))
        picture = picture.resize(enlarged, Image.Resampling.BILINEAR)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        array = _channels(np.asarray(picture.crop((left, top, left + width, top + height))))
        if how.dtype != "uint8":
            array = array / np.float32(255)
            if how.mean:
                array = (array - np.array(how.mean, "float32")) / np.array(how.std, "float32")
        array = array if how.channels_last else array.transpose(2, 0, 1)
        return {how.input: array.astype(how.dtype)}, self.labels[index]


def _of_eight_bits(picture: Any, file: Path) -> Any:
    """The picture with 8 bits a channel: of 16 the upper ones, as Pillow itself does with colours. Raises RequestError
    for numbers whose black and white nobody knows."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise RequestError(
            f"dataset: {file} has pixels of 32 bits (mode {picture.mode}), whose white is not known; store it with 8 "
            "or 16 bits"
        )
    return picture


def _is_picture(file: Path) -> bool:
    """By its name, within the folder of all; what begins with a dot is hidden."""
    return file.suffix.lower() in _PICTURES and not any(part.startswith(".") for part in file.parts)


def _folders(path: Path) -> list[str]:
    """Those in a folder, by name."""
    return sorted(file.name for file in path.glob("*") if file.is_dir() and not file.name.startswith("."))


def _channels(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.ndim == 3 else array[:, :, None]
