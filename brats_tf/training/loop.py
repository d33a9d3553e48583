"""A network in training: what a step is, on one device or several, and the loop over epochs and steps.

The loop is ours because Keras's `fit` begins at whole epochs, and does not train on several machines any more.
"""

import keras
import tensorflow as tf

from brats_tf.models.losses import CrossEntropyMinusDice, MultipleDice, region_dice
from brats_tf.models.registry import get_network
from brats_tf.models.remat import rematerialised
from brats_tf.pipeline.stream import finish
from brats_tf.regions import REGIONS
from brats_tf.runs.folder import build_network


class Trainer(keras.Model):
    """Takes raw batches of `pipeline.training_stream`: augments and makes targets inside the step, on its device."""

    def train_step(self, batch):
        """One step; `batch` is (volumes, classes, seeds)."""
        return super().train_step(finish(*batch, **self.finishing))

    def prepare(self, strategy, *, batch_size, jit):
        """Makes the step function, and the variables of the metrics before several devices ask for them."""
        if not tf.config.list_physical_devices("GPU"):
            # Grappler makes a sum of three gradients or more one that adds in the order of their arrival.
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        shapes = [
            tf.TensorSpec((batch_size, *tensor.shape[1:]), tf.float32) for tensor in (self.inputs[0], self.outputs[0])
        ]
        with strategy.scope():
            self._symbolic_build(data_batch=tuple(shapes))
        one = self.train_step if self.run_eagerly else tf.function(self.train_step, jit_compile=jit)
        several = strategy.num_replicas_in_sync > 1

        def step(batch):
            strategy.run(one, args=(batch,)) if several else one(batch)

        self.step = step if self.run_eagerly or not several else tf.function(step)

    def logs(self):
        """Loss, Dice and learning rate, as floats; means over the epoch so far, over all devices."""
        logs = {name: float(value) for name, value in self.get_metrics_result().items()}
        return logs | {"learning_rate": float(tf.convert_to_tensor(self.optimizer.learning_rate))}

    @property
    def state(self):
        """All variables that decide what comes next, in a fixed order."""
        every = (*self.variables, *self.optimizer.variables, *self.metrics_variables)
        return list({id(one): one for one in every}.values())


def build(config):
    """Builds a config's network and fills in its ImageNet weights. Returns (network, where the weights are from)."""
    network = build_network(config, precision=config.precision)
    return network, get_network(config.network).fill(network, config.weights, config.network_settings())


def make_trainer(network, config):
    """The layers and weights of `network` as a compiled `Trainer`."""
    graph = rematerialised(network) if config.remat else network
    trainer = Trainer(graph.inputs, graph.outputs)
    trainer.finishing = {"outputs": get_network(config.network).outputs, "augmentation": config.augmentation}
    compile_network(trainer, config)
    return trainer


def make_loss(config):
    """The loss that a config names."""
    if config.loss == "ce_minus_dice":
        return CrossEntropyMinusDice(get_network(config.network).outputs)
    return MultipleDice(background=config.loss == "multiple_dice_background")


def compile_network(network, config):
    """Gives a network its loss, its optimiser and the Dice of each region to watch."""
    outputs = get_network(config.network).outputs
    optimizer = {"adam": keras.optimizers.Adam, "nadam": keras.optimizers.Nadam}[config.optimizer]
    optimizer = optimizer(
        config.learning_rate, gradient_accumulation_steps=config.accumulation if config.accumulation > 1 else None
    )
    if config.precision == "float16":  # Its smallest gradients would be 0.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    network.compile(
        optimizer=optimizer,
        loss=make_loss(config),
        metrics=[region_dice(region, outputs) for region in REGIONS],
        auto_scale_loss=False,
        jit_compile=False,  # XLA is several times slower than oneDNN on a CPU; `Trainer.prepare` has it.
    )
    # Built here, outside the step's graph, its variables do not make TensorFlow trace that graph twice.
    network.optimizer.build(network.trainable_variables)


def fit(trainer, batches, *, steps, epochs, start, callbacks):
    """Trains from the place `start`, (epochs, steps of the next one) that are done, to the end.

    Args:
        trainer: a prepared `Trainer`.
        batches: an iterator that begins at that place.
        steps: of an epoch.
        epochs: how many there are in all.
        start: a place within an epoch needs the metrics of its first part, in `trainer`.
        callbacks: Keras's; their logs are floats.
    """
    callbacks = keras.callbacks.CallbackList(callbacks, model=trainer, epochs=epochs, steps=steps)
    first, done = start
    callbacks.on_train_begin()
    for epoch in range(first, epochs):
        if not done:
            trainer.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        for step in range(done, steps):
            trainer.step(next(batches))
            callbacks.on_train_batch_end(step, trainer.logs())
        callbacks.on_epoch_end(epoch, trainer.logs())
        done = 0
    callbacks.on_train_end()
