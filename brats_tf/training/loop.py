"""A network in training: what a step is, on one device or several, and the loop over epochs and steps.

The loop is our own because Keras's `fit` begins at whole epochs, and no longer trains on several machines.
"""

import keras
import tensorflow as tf

from brats_tf.models.registry import get_network
from brats_tf.models.remat import fused_graph
from brats_tf.pipeline.stream import augment_and_encode
from brats_tf.training.optimisation import compile_network


class Trainer(keras.Model):
    """Takes raw batches of `stream.training_stream`: augments and makes targets inside the step, on its device."""

    def train_step(self, batch):
        """One step; `batch` is (volumes, classes, seeds)."""
        return super().train_step(augment_and_encode(*batch, **self.targets))

    def prepare(self, strategy, *, jit):
        """Makes the step function, and the variables of the metrics before several devices ask for them."""
        example = tf.zeros((1, 1, 1, 1, self.outputs[0].shape[-1]))
        with strategy.scope():
            self.compute_loss(y=example, y_pred=example)
            self.compute_metrics(None, example, example)
            self.reset_metrics()
        on_one = self.train_step if self.run_eagerly else tf.function(self.train_step, jit_compile=jit, autograph=False)
        several = strategy.num_replicas_in_sync > 1

        def step(batch):
            strategy.run(on_one, args=(batch,)) if several else on_one(batch)

        self.step = step if self.run_eagerly or not several else tf.function(step, autograph=False)

    def logs(self):
        """Loss, Dice and learning rate, as floats; means over the epoch so far, over all devices."""
        logs = {name: float(value) for name, value in self.get_metrics_result().items()}
        return logs | {"learning_rate": float(tf.convert_to_tensor(self.optimizer.learning_rate))}

    @property
    def state(self):
        """All variables that decide what comes next, in a fixed order."""
        variables = (*self.variables, *self.optimizer.variables, *self.metrics_variables)
        return list({id(variable): variable for variable in variables}.values())


def make_trainer(network, config):
    """The layers and weights of `network` as a compiled `Trainer`."""
    graph = fused_graph(network, rematerialise=config.compute.rematerialise)
    trainer = Trainer(graph.inputs, graph.outputs)
    outputs = get_network(config.network.name).outputs
    trainer.targets = {"outputs": outputs, "augmentation": config.data.augmentation}
    compile_network(trainer, config)
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
