"""Whether the classifier of an embedding still sees something: figures of every epoch, and a warning when it does not.

`planes_live` is the share of plane pixels that are not 0, `planes_std` the planes' standard deviation, and
`squeeze_gradient` the norm of the loss's gradient over the last layers before the planes, whose only way to the loss
leads through the classifier; all three are means over the steps of an epoch.
"""

import logging

import keras
import tensorflow as tf

from brats_tf.models import planes as planes_of_network
from brats_tf.models.planes import BEFORE_PLANES

log = logging.getLogger(__name__)
LIVE, DEVIATION, GRADIENT = "planes_live", "planes_std", "squeeze_gradient"
LEAST_LIVE = 0.01  # Share of the pixels.
LEAST_DEVIATION = 0.01  # Share of the deviation at the first step.


class Pulse:
    """The metrics of one network in training; made and updated in the scope of its strategy."""

    def __init__(self, weights):
        self.metrics = [keras.metrics.Mean(name=name) for name in (LIVE, DEVIATION, GRADIENT)]
        self.places = [index for index, weight in enumerate(weights) if weight.path.startswith(BEFORE_PLANES)]

    def update(self, planes, gradients, scale):
        """Takes one device's planes, see `planes.SPACE`, and gradients; their sum is that of the loss times `scale`."""
        gradients = [gradients[place] for place in self.places]
        device = tf.distribute.get_replica_context()
        if device.num_replicas_in_sync > 1:
            gradients = device.all_reduce("sum", gradients)
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(norm)  # float16 skips a step whose gradients overflow.
        live, deviation, gradient = self.metrics
        live.update_state(planes_of_network.live_share(planes))
        deviation.update_state(planes_of_network.deviation(planes))
        gradient.update_state(tf.where(finite, norm, 0.0), sample_weight=tf.cast(finite, tf.float32))


class WatchPulse(keras.callbacks.Callback):
    """Warns after every epoch in which the planes were dead or carried next to nothing of the volume.

    Attributes:
        collapsed: those epochs, counted from 1; for `run.json`.
    """

    name = "pulse"

    def __init__(self, run_name):
        super().__init__()
        self.run_name, self.start, self.collapsed = run_name, None, []

    def on_train_batch_end(self, batch, logs=None):
        if self.start is None:
            self.start = logs[DEVIATION]

    def on_epoch_end(self, epoch, logs=None):
        live, deviation, gradient = (logs[name] for name in (LIVE, DEVIATION, GRADIENT))
        if live >= LEAST_LIVE and deviation >= LEAST_DEVIATION * self.start and gradient > 0:
            return
        self.collapsed.append(epoch + 1)
        log.warning(
            f"{self.run_name} epoch {epoch + 1}: the classifier sees next to nothing. {100 * live:.2g} % of the plane "
            f"pixels are not 0, their standard deviation is {deviation:.2g} (at first {self.start:.2g}), the gradient "
            f"of the layers before them is {gradient:.2g}. The 3D path learns alone; another --seed, a lower "
            "--learning-rate or --input-scaling standardise may help."
        )

    def state(self):
        """The deviation at the first step, and the epochs of a collapse."""
        return {"start": self.start, "collapsed": self.collapsed}

    def restore(self, state):
        """The counterpart of `state`."""
        self.start, self.collapsed[:] = state["start"], state["collapsed"]
