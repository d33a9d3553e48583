"""Embedding a 2D ImageNet classifier in a 3D brain-tumour segmenter, in Keras.

The map of the package, from the facts at the bottom to the front door on top (imports only point down):

- facts: ``errors``, ``files``, ``screen``, ``regions`` (modalities, label conventions, WT/TC/ET), ``config`` (a run as
  one frozen value)
- data: ``data.cases`` -> ``data.volumes`` -> ``data.transforms`` -> ``data.preparation`` -> ``data.store`` ->
  ``data.pipeline``; ``data.phantom`` writes made-up cases
- networks: ``models.blocks`` -> ``models.interslice``, ``models.backbones``, ``models.decoders``
  -> ``models.embedding`` -> ``models.networks``; ``models.weights`` fills them in, ``models.costs`` counts;
  ``losses`` and ``metrics``
- runs: ``runs`` (a run's folder), ``training``, ``inference``, ``evaluation``, ``pictures``,
  ``report``, ``export``, ``listing``
- ``demo`` and ``bench`` string runs together; ``commands`` and ``cli`` are the front door (``brats-tf --help``)
"""

__version__ = "0.1.0"
