import json

import pytest
from repository import REPOSITORY
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config


@pytest.mark.large
def test_it_measures_both_traps(phantoms, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "experiments")
    from scaling_and_batch_norm import measure

    config = Config.from_preset("embedding", modalities=("flair",), crop=TINY_CROP, weights="none")
    measure(phantoms[0], config, seeds=2, steps=1, folder=tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert_the_traps_show(summary, seeds=2)
    assert summary["weights"].startswith("random weights") and len(summary["classifier_sha256"]) == 64
    assert all(set(row["blinded"]) == {"WT", "TC", "ET"} and row["planes_live"] > 0.5 for row in summary["batch_norm"])
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_published_measurement_shows_both_traps():
    path = REPOSITORY / "experiments" / "results" / "scaling_and_batch_norm.json"
    assert_the_traps_show(json.loads(path.read_text()), seeds=3)


def assert_the_traps_show(summary, *, seeds):
    by_scaling = {(row["seed"], row["input_scaling"]): row for row in summary["scaling"]}
    for seed in range(seeds):  # scaling divides the variance by about 3,300; the gradient falls by 7 or more
        for figure, factor in (("variance", 1000), ("last_gradient", 5)):
            assert by_scaling[seed, "none"][figure] > factor * by_scaling[seed, "imagenet"][figure]
    modes = {(row["seed"], row["batch_norm"]): (row["prediction"], row["training"]) for row in summary["batch_norm"]}
    assert len(modes) == 2 * seeds
    for seed in range(seeds):
        prediction, training = modes[seed, "frozen"]
        assert prediction == training
        prediction, training = modes[seed, "batch"]
        assert prediction != training
