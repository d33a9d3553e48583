from contextlib import contextmanager, nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from brats_tf.config.config import Config
from brats_tf.errors import WriteError
from brats_tf.inference.predictor import Predictor, compiled_forward, compiled_planes
from brats_tf.models.planes import with_planes
from brats_tf.training.tensorboard_images import OVERLAY, PLANES, TensorBoardImages, draw_log, read_log

CROP = (16, 16, 6)


@pytest.fixture
def watched(tmp_path):
    """A run that logged four epochs, the third twice, as after a kill; its network copies the volume to all regions."""
    volume = keras.Input((*CROP, 1), name="volume")
    planes = keras.layers.Lambda(lambda x: x[:, :, :, :3, 0], name="planes")(volume)
    decoded = keras.layers.Identity(name="decoded_planes")(planes)
    deep = keras.layers.Lambda(lambda x: 0.0 * x[:, :, :, :1, None])(decoded)
    network = keras.Model(volume, keras.layers.Concatenate()([volume] * 3) + deep)
    random = np.random.default_rng(0)
    values = random.uniform(0, 0.4, (*CROP, 1)).astype(np.float32)
    classes = np.zeros(CROP, np.uint8)
    classes[4:8, 4:8, 2:4], values[4:8, 4:8, 2:4] = 3, 1
    classes[10:12, 10:12, 2:4] = 2  # Not predicted.
    config = Config.from_preset("embedding", modalities=("flair",), crop=(64, 64, 36), epochs=4)
    for epochs in ((0, 1, 2), (2, 3)):
        predictor = Predictor(config, network, compiled_forward(network))
        planes_of = compiled_planes(with_planes(network))
        case = ("Case_7", values, classes)
        watch = TensorBoardImages(tmp_path, predictor, case, planes_of=planes_of, averaged=nullcontext)
        watch.on_train_begin()
        for epoch in epochs:
            watch.on_epoch_end(epoch, {"loss": 1 / (epoch + 1), "dice_wt": epoch / 10, "learning_rate": 1e-4})
        watch.on_train_end()
    return tmp_path, values, classes


def test_a_full_disk_is_not_taken_for_too_little_memory(tmp_path, monkeypatch):
    def fail(path):
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}; No space left on device")

    monkeypatch.setattr(tf.summary, "create_file_writer", fail)
    config = Config.from_preset("embedding", modalities=("flair",))
    predictor, case = Predictor(config, None, None), ("Case_7", None, None)
    watch = TensorBoardImages(tmp_path, predictor, case, planes_of=None, averaged=nullcontext)
    with pytest.raises(WriteError, match="tensorboard could not be written: No space left on device"):
        watch.on_train_begin()


def test_the_log_reads_back(watched):
    run, *_ = watched
    curves, pictures = read_log(run)
    assert set(curves) == {"loss", "dice_wt", "learning_rate"}
    np.testing.assert_allclose(curves["loss"], [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)], rtol=1e-6)
    np.testing.assert_allclose(curves["dice_wt"], [(1, 0), (2, 0.1), (3, 0.2), (4, 0.3)], rtol=1e-6)
    assert pictures[PLANES].shape == (16, 3 * 16, 3)
    overlay = pictures[OVERLAY]
    assert overlay.shape == (16, 2 * 16, 3)
    truth, prediction = overlay[:, :16].astype(int), overlay[:, 16:].astype(int)
    np.testing.assert_array_equal(truth[4:8, 4:8], prediction[4:8, 4:8])
    assert np.ptp(truth[11, 11]) > 20 and np.ptp(prediction[11, 11]) == 0
    tumour = overlay[5, 5].astype(int)
    assert tumour[0] > tumour[2] + 50
    assert np.ptp(overlay[0, 0].astype(int)) == 0


def test_the_planes_are_those_of_the_network(watched):
    run, values, _ = watched
    planes = read_log(run)[1][PLANES][..., 0].astype(float)
    for number in range(3):
        shown = planes[:, 16 * number : 16 * (number + 1)]
        assert np.corrcoef(shown.ravel(), values[:, :, number, 0].ravel())[0, 1] > 0.9


def test_a_picture_of_the_log_lies_in_the_run(watched):
    run, *_ = watched
    draw_log(run)
    picture = tf.io.decode_png((run / "training.png").read_bytes()).numpy()
    assert picture.shape[0] > 500 and picture.shape[1] > 800
    assert np.ptp(picture[..., 0].astype(int)) > 200


def test_the_images_are_those_of_the_weights_that_are_saved(tmp_path, monkeypatch):
    inside, seen = [], []

    @contextmanager
    def averaged():
        inside.append(True)
        yield
        inside.pop()

    config = Config.from_preset("embedding", modalities=("flair",), epochs=1)
    case = ("Case_7", None, None)
    watch = TensorBoardImages(tmp_path, Predictor(config, None, None), case, planes_of=None, averaged=averaged)
    monkeypatch.setattr(watch, "_images", lambda: seen.append(bool(inside)) or [])
    watch.on_train_begin()
    watch.on_epoch_end(0, {"loss": 1.0})
    watch.on_train_end()
    assert seen == [True] and inside == []
