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
        self._sum, self._squares, self._several = None, None, several

    def add(self, predictor, probabilities):
        """Adds one network's probabilities."""
        self.networks.append(predictor.name)
        regions = None
        if self._several or predictor.outputs != self.outputs:
            regions = np.asarray(to_regions(probabilities, predictor.outputs))
        values = probabilities if predictor.outputs == self.outputs else regions
        if not self._several:
            self._sum = values
            return
        if self._sum is None:
            self._sum, self._squares = np.zeros_like(values), np.zeros_like(regions)
        self._sum += values
        for region in range(len(REGIONS)):  # One at a time, for less memory.
            self._squares[..., region] += np.square(regions[..., region])

    @property
    def average(self):
        """Mean over the networks, (H, W, D, K), float32."""
        return self._sum / len(self.networks) if self._several else self._sum

    def regions(self):
        """Mean over the networks as regions, (H, W, D, 3), float32."""
        return np.asarray(to_regions(self.average, self.outputs))

    def uncertainty(self):
        """Standard deviation over the networks, (H, W, D, 3), float32, from 0 to 0.5; None for a single one."""
        if self._squares is None:
            return None
        found = self.regions()
        deviations = np.empty_like(found)
        for region in range(len(REGIONS)):
            squares = self._squares[..., region] / len(self.networks)
            deviations[..., region] = np.sqrt(np.maximum(squares - np.square(found[..., region]), 0))
        return deviations


def mean_uncertainty(uncertainty, regions):
    """One figure per region: the mean uncertainty where the average probability is above 0.05; 0 where it never is."""
    figures = {}
    for i, region in enumerate(REGIONS):
        possible = regions[..., i] > POSSIBLE_PROBABILITY
        figures[region] = float(uncertainty[..., i][possible].mean()) if possible.any() else 0.0
    return figures
