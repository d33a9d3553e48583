"""Five-fold cross-validation of FLAIR's network, with two seeds: how far do fold, seed and augmentation move the Dice?

Preset `paper` beside `plus` (depth 144, augmentation). The paper states neither folds nor seeds, so there is no figure
to expect.

Command:  make experiment NAME=folds_and_seeds DATA=BraTS2020_TrainingData
Time:     20 trainings of 200 epochs at full size: for GPUs.
"""

GRID = {"preset": ("paper", "plus"), "fold": ("0/5", "1/5", "2/5", "3/5", "4/5"), "seed": (0, 1)}
OPTIONS = {"modality": "flair"}
