"""TensorBoard's log of a training: curves, the planes that the classifier sees, one case's truth and prediction.

The log lies in the run's folder; `training.png` beside it shows its curves and last images without TensorBoard.
"""

from contextlib import contextmanager, nullcontext
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brats_tf.errors import WriteError
from brats_tf.models.outputs import to_classes
from brats_tf.runs.files import CURVES_FILE, TENSORBOARD_FOLDER
from brats_tf.runtime.tensorflow import as_os_error
from brats_tf.visualisation.overlays import blend
from brats_tf.visualisation.plots import save_log

IMAGES_PER_TRAINING = 10  # Where no case validates.
PLANES, OVERLAY = "planes into the classifier", "truth, prediction"


class TensorBoardImages(keras.callbacks.Callback):
    """Writes every epoch's logs, and images of one case every few epochs.

    Args:
        run: the run's folder.
        predictor: a `Predictor` with the weights in training.
        case: (id, volume (H, W, D, C), classes (H, W, D)), prepared.
        planes_of: see `predictor.compiled_planes`; None for a network without planes.
        averaged: a context manager in which the predictor has the weights to show.
    """

    def __init__(self, run, predictor, case, *, planes_of, averaged):
        super().__init__()
        self.folder, self.predictor, self.planes_of = Path(run) / TENSORBOARD_FOLDER, predictor, planes_of
        self.averaged = averaged
        self.case_id, self.volume, self.classes = case
        training = predictor.config.training
        self.every = training.validation_frequency or max(1, training.epochs // IMAGES_PER_TRAINING)

    def on_train_begin(self, logs=None):
        with self._writing():
            self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch, logs=None):
        due = (epoch + 1) % self.every == 0 or epoch + 1 == self.predictor.config.training.epochs
        with self.averaged() if due else nullcontext():
            images = list(self._images()) if due else []
        with self._writing(), self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            for name, picture, description in images:
                tf.summary.image(name, picture[None].astype(np.float32), description=description)
            self.writer.flush()

    def on_train_end(self, logs=None):
        with self._writing():
            self.writer.close()

    @contextmanager
    def _writing(self):
        """A full disk is a `ResourceExhaustedError`, as too little memory is."""
        try:
            yield
        except tf.errors.OpError as error:
            raise WriteError(f"{self.folder} could not be written: {as_os_error(error).strerror or error}.") from error

    def _images(self):
        """(name, picture (H, W, 3), description) of what is to be seen of the case."""
        depth = round(np.argwhere(self.classes)[:, 2].mean()) if self.classes.any() else self.classes.shape[2] // 2
        predicted = to_classes(self.predictor.predict(self.volume), self.predictor.outputs)
        slices = [blend(self.volume[:, :, depth, 0], classes[:, :, depth]) for classes in (self.classes, predicted)]
        yield OVERLAY, np.concatenate(slices, axis=1), f"{self.case_id}, slice {depth}"
        if self.planes_of:
            planes = [blend(plane, np.zeros(plane.shape)) for plane in self.planes_of(self.volume, depth)[0]]
            yield PLANES, np.concatenate(planes, axis=1), f"{self.case_id}; black to white is the range of each plane"


def read_log(run):
    """A run's log: ({name: [(epoch, value)]}, {name: the last image (H, W, 3) uint8}).

    An epoch that was trained again after a kill counts once.
    """
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

    log = EventAccumulator(str(Path(run) / TENSORBOARD_FOLDER), {TENSORS: 0})
    log.Reload()
    curves, pictures = {}, {}
    for name in log.Tags()[TENSORS]:
        values = {event.step: tf.make_ndarray(event.tensor_proto) for event in log.Tensors(name)}
        if name in (PLANES, OVERLAY):
            pictures[name] = tf.io.decode_png(values[max(values)][2]).numpy()  # Width and height come before it.
        else:
            curves[name] = [(step, float(values[step])) for step in sorted(values)]
    return curves, pictures


def draw_log(run):
    """Draws a run's log as `training.png` in its folder."""
    curves, pictures = read_log(run)
    save_log(Path(run) / CURVES_FILE, curves, pictures, title=f"{Path(run).name}: what TensorBoard shows")
