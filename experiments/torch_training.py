"""Trains a peer's network (`bench.torch_networks`) as `jax_training` does one of this package: same loss, augmentation
and order of cases, in PyTorch with automatic mixed precision where the device computes in bfloat16.
"""

import numpy as np
import torch
from recipes import BRIGHTNESS

from bench.torch_networks import network_of as build
from brats_tf.regions import MEMBERSHIP
from brats_tf.runtime.system import cpu_has_bfloat16

EPSILON = 1e-7


class TorchTraining:
    """A network of another system in training; the counterpart of `jax_training.Training` for regions."""

    def __init__(self, name, recipe, seed=0):
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.benchmark = True
        self.precision = "bfloat16" if self.device.type != "cpu" or cpu_has_bfloat16() else "float32"  # Of a step.
        self.network, self.recipe, self.done = build(name).train().to(self.device), recipe, 0
        rate, decay = recipe.learning_rate, recipe.weight_decay
        self.optimiser = torch.optim.AdamW(self.network.parameters(), rate, eps=EPSILON, weight_decay=decay)
        self.random = np.random.default_rng(seed)
        self.membership = torch.tensor(MEMBERSHIP, dtype=torch.float32, device=self.device)

    def on_device(self, *arrays):
        """The arrays where `run` wants them."""
        return [torch.as_tensor(one, device=self.device) for one in arrays]

    def run(self, volumes, classes, indices):
        """One step for each of `indices`; {"loss", "dice" (steps, 3)} of each."""
        losses, dices = [], []
        for index in indices:
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate()
            volume, labels = self._augmented(volumes[index], classes[index])
            target = self.membership[labels.long()].permute(3, 0, 1, 2)[None]
            probabilities = self._forward(volume, self.precision)
            total = loss(target, probabilities)
            self.optimiser.zero_grad()
            total.backward()
            self.optimiser.step()
            self.done += 1
            losses.append(total.detach())
            dices.append(_dice(target, (probabilities.detach() > 0.5).float()))
        return {"loss": torch.stack(losses).cpu().numpy(), "dice": torch.stack(dices).cpu().numpy()}

    def predict(self, volumes):
        """Probabilities (N, H, W, D, 3) float32 of volumes (N, H, W, D, C), computed in float32."""
        self.network.eval()
        with torch.inference_mode():
            found = [self._forward(torch.as_tensor(one, device=self.device).float(), "float32") for one in volumes]
        self.network.train()
        return np.stack([one[0].permute(1, 2, 3, 0).cpu().numpy() for one in found])

    def _forward(self, volume, precision):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = self.network(volume.permute(3, 0, 1, 2)[None].contiguous())
        return torch.sigmoid(logits.float())

    def _rate(self):
        recipe = self.recipe
        if self.done < recipe.warmup:
            return recipe.learning_rate * self.done / recipe.warmup
        share = (self.done - recipe.warmup) / (recipe.steps - recipe.warmup)
        cosine = 0.5 * (1 + np.cos(np.pi * share))
        return recipe.learning_rate * (recipe.final_rate + (1 - recipe.final_rate) * cosine)

    def _augmented(self, volume, classes):
        volume, classes = (torch.as_tensor(one, device=self.device) for one in (volume, classes))
        volume = volume.float()
        axes = [axis for axis in self.recipe.mirror if self.random.random() < 0.5]
        volume, classes = volume.flip(axes), classes.flip(axes)
        if self.recipe.brightness:
            size = (2, volume.shape[-1])
            scale, shift = torch.as_tensor(self.random.uniform(-BRIGHTNESS, BRIGHTNESS, size)).to(volume)
            volume = torch.where(volume != 0, volume * (1 + scale) + shift, 0)
        return volume, classes


def loss(target, probabilities):
    """CE - Dice, see `brats_tf.models.losses.CrossEntropyMinusDice`."""
    with torch.autocast(target.device.type, enabled=False):
        clipped = probabilities.clamp(EPSILON, 1 - EPSILON)
        entropy = -(target * clipped.log() + (1 - target) * (1 - clipped).log()).mean()
    squares = (target**2).sum((2, 3, 4)) + (probabilities**2).sum((2, 3, 4))
    return entropy - (2 * (target * probabilities).sum((2, 3, 4)) / (squares + EPSILON)).mean()


def _dice(target, prediction):
    sizes = (target + prediction).sum((0, 2, 3, 4))
    return torch.where(sizes > 0, 2 * (target * prediction).sum((0, 2, 3, 4)) / sizes.clamp(min=1), 1.0)
