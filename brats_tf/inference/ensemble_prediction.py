"""What an ensemble predicts of one case: its mean, and how far its networks are apart."""

import dataclasses

import numpy as np

from brats_tf.models.outputs import to_regions
from brats_tf.regions import REGIONS

POSSIBLE_PROBABILITY = 0.05  # Uncertainty counts where a region's average probability is above this.


class EnsemblePrediction:
    """What the networks predict of one case: the sum of their probabilities (H, W, D, K), and of the regions' squares.

    The channels are regions, or classes where all networks have classes. `prepared` is the case without its volume,
    `trained` the networks that the case has trained, `seconds` the time that it took so far, `files` what
    `source_files` told of its images.
    """

    def __init__(self, prepared, outputs, *, several):
        self.prepared = dataclasses.replace(prepared, volume=None)
        self.outputs, self.networks, self.trained, self.seconds, self.files = outputs, [], [], 0.0, {}
        self._sum, self._squares, self._average, self._several = None, None, None, several

    def add(self, predictor, probabilities):
        """Adds one network's probabilities, before the average is asked for. They are this object's from then on."""
        self.networks.append(predictor.name)
        regions = None
        if self._several or predictor.outputs != self.outputs:
            regions = np.asarray(to_regions(probabilities, predictor.outputs))
        values = probabilities if predictor.outputs == self.outputs else regions
        if self._several:
            self._add_squares(regions)
        if self._sum is None:
            self._sum = values if values.flags.writeable else values.copy()  # TensorFlow's memory is not.
        else:
            self._sum += values

    def _add_squares(self, regions):
        if self._squares is None:
            self._squares = np.zeros_like(regions)
        for region in range(len(REGIONS)):  # One at a time, for less memory.
            self._squares[..., region] += np.square(regions[..., region])

    @property
    def average(self):
        """Mean over the networks, (H, W, D, K), float32."""
        if self._average is None:  # In the place of the sum.
            self._average = np.divide(self._sum, len(self.networks), out=self._sum) if self._several else self._sum
        return self._average

    def regions(self):
        """Mean over the networks as regions, (H, W, D, 3), float32."""
        return np.asarray(to_regions(self.average, self.outputs))

    def uncertainty(self):
        """Standard deviation over the networks, (H, W, D, 3), float32, from 0 to 0.5; None for a single one."""
        if not self._several:
            return None
        return np.stack([deviations for deviations, _ in self._deviations()], axis=-1)

    def mean_uncertainty(self):
        """One figure per region: the mean uncertainty where the average probability is above 0.05.

        0 where it never is; None for a single network.
        """
        if not self._several:
            return None
        possible = [deviations[average > POSSIBLE_PROBABILITY] for deviations, average in self._deviations()]
        return {name: float(one.mean()) if one.size else 0.0 for name, one in zip(REGIONS, possible, strict=True)}

    def _deviations(self):
        """(standard deviation over the networks, their mean) of each region, (H, W, D), one after another."""
        found = self.regions()
        for region in range(len(REGIONS)):
            average, squares = found[..., region], self._squares[..., region] / len(self.networks)
            yield np.sqrt(np.maximum(squares - np.square(average), 0)), average
