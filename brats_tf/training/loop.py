"""A network in training: what a step is, on one device or several, and the loop over epochs and steps.

The loop is our own because Keras's `fit` begins at whole epochs, and no longer trains on several machines.
"""

from contextlib import nullcontext

import keras
import tensorflow as tf

from brats_tf.models.forms import one_form
from brats_tf.models.registry import get_network
from brats_tf.models.remat import classifiers
from brats_tf.pipeline.stream import augment_and_encode
from brats_tf.runtime.tensorflow import has_gpu
from brats_tf.training.optimisation import compile_network
from brats_tf.training.pulse import Pulse


class Trainer(keras.Model):
    """Takes raw batches of `stream.training_stream`: augments and makes targets inside the step, on its device.

    Attributes:
        targets: the settings of `augment_and_encode`.
        forward: a function volumes -> [probabilities, planes where there are any, ...], as in training.
        pulse: the `Pulse` of a network with planes, or None.
    """

    pulse = None

    def train_step(self, batch):
        """One step of Keras's `fit`; `batch` is (volumes, classes, seeds)."""
        self.learn(*augment_and_encode(*batch, **self.targets))
        return self.get_metrics_result()

    def learn(self, volumes, targets):
        """One update of the weights and of all metrics."""
        with tf.GradientTape() as tape:
            probabilities, *planes = self.forward(volumes)
            loss = self.compute_loss(volumes, targets, probabilities)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        gradients = tape.gradient(scaled, weights)
        scale = self.optimizer.scale_loss(1.0)  # Before a step changes it.
        self.optimizer.apply(gradients, weights)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # Keras divides the loss by it.
        self._loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(volumes)[0])
        self.compute_metrics(volumes, targets, probabilities)
        if self.pulse:
            self.pulse.update(planes[0], gradients, scale)

    def _learn_by_xla(self, *batch):
        """XLA does not know all operations of the forms that are fastest on a CPU without it."""
        with nullcontext() if has_gpu() else one_form():
            self.learn(*batch)

    def prepare(self, strategy, *, jit):
        """Makes the step function, and the variables of the metrics before several devices ask for them.

        XLA compiles what the network does. What augments it, whose shapes depend on chance, TensorFlow runs.
        """
        example = tf.zeros((1, 1, 1, 1, self.outputs[0].shape[-1]))
        with strategy.scope():
            self.compute_loss(y=example, y_pred=example)
            self.compute_metrics(None, example, example)
            self.reset_metrics()
        learn = tf.function(self._learn_by_xla, jit_compile=True, autograph=False) if jit else self.learn
        several = strategy.num_replicas_in_sync > 1

        def on_one(batch):
            learn(*augment_and_encode(*batch, **self.targets))

        if not self.run_eagerly:
            on_one = tf.function(on_one, autograph=False)

        def step(batch):
            strategy.run(on_one, args=(batch,)) if several else on_one(batch)

        self.step = step if self.run_eagerly or not several else tf.function(step, autograph=False)

    @property
    def metrics(self):
        """Loss, Dice and pulse."""
        return [*super().metrics, *(self.pulse.metrics if self.pulse else [])]

    def logs(self):
        """Loss, Dice and learning rate, as floats; means over the epoch so far, over all devices."""
        logs = {name: float(value) for name, value in self.get_metrics_result().items()}
        return logs | {"learning_rate": float(tf.convert_to_tensor(self.optimizer.learning_rate))}

    @property
    def state(self):
        """All variables that decide what comes next, in a fixed order."""
        variables = (*self.variables, *self.optimizer.variables, *self.metrics_variables)
        return list({id(variable): variable for variable in variables}.values())


def make_trainer(graph, config, loss=None):
    """A compiled `Trainer` with the layers and weights of a `planes.with_planes`; None takes the config's loss."""
    trainer = Trainer(graph.inputs, graph.outputs[0])
    outputs = get_network(config.network.name).outputs
    trainer.targets = {"outputs": outputs, "augmentation": config.data.augmentation}
    trainer.targets["modality_dropout"] = config.data.modality_dropout
    trainer.forward = lambda volumes: tf.nest.flatten(graph(volumes, training=True))
    if getattr(config.network, "classifier_rate", 1.0) == 0:
        for classifier in classifiers(trainer):
            classifier.trainable = False  # Its gradients are not even computed.
    compile_network(trainer, config, loss)
    if len(graph.outputs) > 1:
        trainer.pulse = Pulse(trainer.trainable_weights)
    return trainer


def fit(trainer, batches, length, *, start, callbacks):
    """Trains from the place `start` to the end.

    Args:
        trainer: a prepared `Trainer`.
        batches: an iterator that begins at that place.
        length: a `training_data.Length`: epochs, and steps per epoch.
        start: (epochs, steps of the next one) already done; a place within an epoch needs the metrics of its first
            part, in `trainer`.
        callbacks: Keras's; their logs are floats.
    """
    callbacks = keras.callbacks.CallbackList(callbacks, model=trainer, epochs=length.epochs, steps=length.steps)
    first, done = start
    callbacks.on_train_begin()
    for epoch in range(first, length.epochs):
        if not done:
            trainer.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        for step in range(done, length.steps):
            trainer.step(next(batches))
            callbacks.on_train_batch_end(step, trainer.logs())
        callbacks.on_epoch_end(epoch, trainer.logs())
        done = 0
    callbacks.on_train_end()
