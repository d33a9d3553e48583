import json

import keras
import pytest
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.models.build import build_network


@pytest.mark.large
def test_each_runtime_finds_the_dice_of_the_others(phantom_folder, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `runtimes`")
    import runtimes

    keras.utils.set_random_seed(0)
    run = tmp_path / "run"
    run.mkdir()
    config = Config.from_preset("embedding", modalities=("flair",), crop=TINY_CROP, backbone="tiny", weights="none")
    config.save(run)
    build_network(config).save_weights(run / "network.weights.h5")
    assert runtimes.main([str(run), str(phantom_folder), "--cases", "2", "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "runtimes.json").read_text())
    assert [(row["kind"], row["weight_type"]) for row in found["rows"]] == list(runtimes.KINDS)
    for row in found["rows"]:
        assert row["seconds"] > 0 and row["peak_gb"] > 0.05
        assert row["largest_difference"] < (1e-4 if row["weight_type"] == "float32" else 0.05)
    assert found["rows"][2]["megabytes"] < 0.6 * found["rows"][1]["megabytes"]
