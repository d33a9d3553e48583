import json
import sys

import pytest
from conftest import REPOSITORY, TINY_CROP

from brats_tf.config import Config


@pytest.mark.slow
def test_it_measures_both_traps(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "experiments"), *sys.path])
    from scaling_and_batch_norm import measure

    config = Config.from_preset("paper", modalities=("flair",), crop=TINY_CROP, weights="none")
    measure(phantoms[0], config, seeds=2, steps=1, folder=tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    by_scaling = {(row["seed"], row["input_scaling"]): row for row in summary["scaling"]}
    for seed in range(2):
        for figure, factor in (("variance", 1000), ("last_gradient", 5)):
            assert by_scaling[seed, "none"][figure] > factor * by_scaling[seed, "imagenet"][figure]
    for row in summary["batch_norm"]:
        assert (row["prediction"] == row["training"]) or row["batch_norm"] == "batch"
    assert len(summary["batch_norm"]) == 4
    assert (tmp_path / "figure.png").stat().st_size > 10_000
