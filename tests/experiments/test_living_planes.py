"""What the classifier gets is measured at every step, and a results file without its origin is refused."""

import json

import living_planes
import pytest
import results_files
from provenance import continued, provenance
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.errors import InputError


@pytest.mark.large
def test_every_step_is_measured(phantoms):
    config = Config.from_preset("embedding", modalities=("flair",), crop=TINY_CROP, backbone="tiny", weights="none")
    cases = [living_planes._prepared(case, config) for case in phantoms[:2]]
    found = living_planes.measure(config, cases, steps=3)
    assert found["weights"].startswith("random weights") and len(found["classifier_sha256"]) == 64
    assert all(len(found[name]) == 3 for name in ("loss", "planes_live", "planes_std", "squeeze_gradient"))
    assert min(found["planes_live"]) > 0.9 and min(found["squeeze_gradient"]) > 0
    assert len(set(found["loss"])) == 3
    line = living_planes.summary_of({"seed": 4, "variant": "standardise-frozen", **found})
    assert line.startswith("seed 4, standardise-frozen: live 1")


@pytest.mark.parametrize("lost", ["commit", "versions", "machine", "weights", "classifier_sha256"])
def test_a_results_file_without_its_origin_is_refused(lost, tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(results_files, "FOLDER", tmp_path)
    one = {"weights": "ImageNet weights from a file", "classifier_sha256": "0" * 64}
    whole = provenance() | {"commit": "1234567"} | {"runs": [one]}
    path = tmp_path / "results" / "living_planes-flair.json"
    path.write_text(json.dumps(whole))
    assert results_files.read_measured("living_planes-flair") == whole
    del (one if lost in one else whole)[lost]
    path.write_text(json.dumps(whole))
    with pytest.raises(SystemExit, match=f"living_planes-flair.json lacks {lost}"):
        results_files.read_measured("living_planes-flair")


def test_a_results_file_of_other_settings_is_not_continued(tmp_path):
    path, facts = tmp_path / "living_planes-flair.json", {"crop": "64x64x36", "steps": 40}
    assert continued(path, facts) == []
    path.write_text(json.dumps(facts | {"runs": [{"seed": 0}]}))
    assert continued(path, facts) == [{"seed": 0}]
    with pytest.raises(InputError, match="must be of the same settings.* Received: steps 100, there 40"):
        continued(path, facts | {"steps": 100})
