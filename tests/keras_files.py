"""Small networks of Keras in every kind of file, made where TensorFlow is installed."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tuner.build.store import Store
from tuner.plugins.models.keras_model import KerasModel
from tuner.system import interpreters
from tuner.system.launcher import Launcher

KEPT = Store(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "inference-tuner").environments
"""Where a command finds an environment, unless it names a cache."""


def there(environments: Path = KEPT) -> bool:
    """Whether the environment of TensorFlow is kept there."""
    return interpreters.find(environments, KerasModel.requirements) is not None


def made(folder: Path) -> None:
    """Fills the folder, in the environment that is kept there."""
    launcher = Launcher(6000.0, environments=KEPT).with_libraries_of(KerasModel)
    with launcher.open(folder / "log") as worker:
        worker.run_for(300, build, folder)


def build(folder: Path) -> None:
    """`net` has two outputs; `right.npz` has what it answers to the images of `channels_last.npz`. `code` has a layer
    that is code, `own` one that Keras does not know."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).normal(size=(80, 8, 8, 1)).astype("float32")
    image = keras.Input((8, 8, 1), name="image")
    features = keras.layers.Conv2D(4, 3, activation="relu", padding="same")(image)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(features))
    scores = keras.layers.Dense(3, activation="softmax", name="scores")(features)
    churn = keras.layers.Dense(1, activation="sigmoid", name="churn")(features)
    net = keras.Model(image, [scores, churn])
    for name in ("net.keras", "net.h5"):
        net.save(folder / name)
    net.export(folder / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    (folder / "net.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each[None]] for each in images)
    (folder / "int8.tflite").write_bytes(converter.convert())
    code = keras.Model(image, keras.layers.Flatten(name="doubled")(keras.layers.Lambda(lambda x: x * 2)(image)))
    code.save(folder / "code.h5")

    class Own(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x + 1

    keras.Sequential([image, Own()]).save(folder / "own.keras")
    right = net.predict(images, verbose=0)
    np.savez(folder / "channels_last.npz", image=images)
    np.savez(folder / "right.npz", scores=right[0], churn=right[1])
