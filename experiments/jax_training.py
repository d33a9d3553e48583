"""Trains a network of this package with Keras on JAX: all steps of an epoch are one program on the device.

For a GPU that TensorFlow does not run on, and for many short trainings: what `brats-tf train` does with TensorFlow,
batch 1, without files. Import it before Keras.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Several processes share a GPU.

from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np
from recipes import BRIGHTNESS

from brats_tf.models.losses import region_dice
from brats_tf.models.planes import BEFORE_PLANES, blinded, deviation, has_planes, live_share, with_planes
from brats_tf.regions import MEMBERSHIP, REGIONS

EMA = "ema"


class Training:
    """A network in training. `run` goes on from where the last call stopped.

    Attributes:
        done: the number of steps so far.
    """

    def __init__(self, network, recipe, seed=0):
        self.network, self.recipe = network, recipe
        self.graph = with_planes(network)
        warmup = {"warmup_target": recipe.learning_rate, "warmup_steps": recipe.warmup} if recipe.warmup else {}
        first = 0.0 if recipe.warmup else recipe.learning_rate
        steps = recipe.steps - recipe.warmup
        schedule = keras.optimizers.schedules.CosineDecay(first, steps, alpha=recipe.final_rate, **warmup)
        self.optimiser = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
        self.optimiser.build(self.graph.trainable_variables)
        nested = [layer for layer in network.layers if isinstance(layer, keras.Model)]
        inside = {id(weight) for layer in nested for weight in layer.trainable_variables}
        trainable = self.graph.trainable_variables
        self.rates = [recipe.classifier_rate if id(weight) in inside else 1.0 for weight in trainable]
        self.watched = [index for index, one in enumerate(trainable) if one.path.startswith(BEFORE_PLANES)]
        # The first run gives all these buffers away, and `restart` needs them again.
        self._optimiser_start = [np.asarray(weight.value) for weight in self.optimiser.variables]
        self._scan, self._forward = jax.jit(self._steps, donate_argnums=0), {}
        self._begin(seed)

    def restart(self, weights, seed):
        """Begins another training from a network's `get_weights`, without compiling anything again."""
        self.network.set_weights(weights)
        self._begin(seed)

    def _begin(self, seed):
        self.done, self.key = 0, jax.random.key(seed)
        values = [jnp.copy(weight.value) for weight in self.graph.trainable_variables]
        self.state = {
            "trainable": values,
            "fixed": [jnp.copy(weight.value) for weight in self.graph.non_trainable_variables],
            "optimiser": [jnp.asarray(value) for value in self._optimiser_start],
            EMA: [jnp.copy(value) for value in values] if self.recipe.ema else [],
        }

    def on_device(self, *arrays):
        """The arrays where `run` wants them."""
        return [jnp.asarray(one) for one in arrays]

    def run(self, volumes, classes, indices):
        """One step for each of `indices` into volumes (N, H, W, D, C) and classes (N, H, W, D), on the device.

        Returns:
            {"loss", "dice" (steps, 3), and of a network with planes "planes_live", "planes_std", "squeeze_gradient"}
            of each step.
        """
        keys = jax.vmap(partial(jax.random.fold_in, self.key))(jnp.arange(self.done, self.done + len(indices)))
        self.state, logs = self._scan(self.state, volumes, classes, jnp.asarray(indices), keys)
        self.done += len(indices)
        return {name: np.asarray(values) for name, values in logs.items()}

    def predict(self, volumes, *, blind=False):
        """Probabilities (N, H, W, D, K) float32 of volumes (N, H, W, D, C), by averaged weights where there are any.

        K is 3 of a network of regions, whose further heads are left out.
        """
        self.write_back()
        if blind not in self._forward:
            model = blinded(self.network) if blind else self.network
            run = jax.jit(lambda *arguments: model.stateless_call(*arguments, training=False)[0])
            self._forward[blind] = model, run
        model, run = self._forward[blind]
        kinds = (model.trainable_variables, model.non_trainable_variables)
        trainable, fixed = ([one.value for one in kind] for kind in kinds)
        found = (run(trainable, fixed, volume[None].astype("float32"))[0] for volume in volumes)
        return np.stack([np.asarray(one[..., : self.recipe.channels]) for one in found])

    def write_back(self):
        """Gives the network the weights reached so far."""
        kept = self.state[EMA] if self.recipe.ema else self.state["trainable"]
        for variable, value in zip(self.graph.trainable_variables, kept, strict=True):
            variable.assign(value)
        for variable, value in zip(self.graph.non_trainable_variables, self.state["fixed"], strict=True):
            variable.assign(value)

    def _steps(self, state, volumes, classes, indices, keys):
        def step(state, one):
            index, key = one
            volume, labels = self._augmented(volumes[index].astype("float32"), classes[index], key)
            return self._step(state, volume[None], self._target(labels)[None])

        return jax.lax.scan(step, state, (indices, keys))

    def _step(self, state, volume, target):
        def total(trainable):
            outputs, fixed = self.graph.stateless_call(trainable, state["fixed"], volume, training=True)
            probabilities, *planes = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            return jnp.mean(self.recipe.loss(target, probabilities)), (fixed, probabilities, planes)

        (loss, (fixed, probabilities, planes)), gradients = jax.value_and_grad(total, has_aux=True)(state["trainable"])
        before = state["trainable"]
        after, optimiser = self.optimiser.stateless_apply(state["optimiser"], gradients, before)
        pairs = zip(before, after, self.rates, strict=True)
        after = [new if rate == 1 else old + rate * (new - old) for old, new, rate in pairs]
        momentum = self.recipe.ema
        # As long as there is little to average, the average is that of all steps so far.
        momentum = jnp.minimum(momentum, 1 - 1 / (optimiser[0].astype("float32") + 1))
        ema = [momentum * old + (1 - momentum) * new for old, new in zip(state[EMA], after, strict=False)]
        dice = [region_dice(region, self.recipe.outputs)(target, probabilities)[0] for region in REGIONS]
        logs = {"loss": loss, "dice": jnp.stack(dice)}
        if has_planes(self.network):
            squares = sum(jnp.sum(jnp.square(gradients[index].astype("float32"))) for index in self.watched)
            logs |= {"planes_live": live_share(planes[0]), "planes_std": deviation(planes[0])}
            logs["squeeze_gradient"] = jnp.sqrt(squares)
        return {"trainable": after, "fixed": fixed, "optimiser": optimiser, EMA: ema}, logs

    def _target(self, classes):
        kinds = np.eye(len(MEMBERSHIP)) if self.recipe.outputs == "classes" else MEMBERSHIP
        return jnp.asarray(kinds, "float32")[classes.astype("int32")]

    def _augmented(self, volume, classes, key):
        recipe = self.recipe
        keys = jax.random.split(key, 6)
        for axis, chance in zip(recipe.mirror, keys[:3], strict=False):
            there = jax.random.bernoulli(chance)
            volume, classes = (jnp.where(there, jnp.flip(one, axis), one) for one in (volume, classes))
        if recipe.brightness:
            scale, shift = jax.random.uniform(keys[3], (2, volume.shape[-1]), minval=-BRIGHTNESS, maxval=BRIGHTNESS)
            volume = jnp.where(volume != 0, volume * (1 + scale) + shift, 0)
        if recipe.modality_dropout:
            missing = jax.random.bernoulli(keys[4], recipe.modality_dropout)
            which = jax.random.randint(keys[5], (), 0, volume.shape[-1])
            volume = jnp.where(missing & (jnp.arange(volume.shape[-1]) == which), 0, volume)
        return volume, classes
