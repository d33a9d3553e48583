"""The cohort of the experiment is the cases under other names, and its rows count what differs."""

import json
from types import SimpleNamespace

import cohort_on_ray
import pytest

from brats_tf.data.discovery import find_cases


def test_the_cohort_has_each_case_under_several_names(phantoms, tmp_path):
    cohort_on_ray.write_cohort(phantoms[:2], 3, tmp_path)
    found = find_cases(tmp_path)[0]
    assert len(found) == 6
    assert {case.id for case in found} == {f"{case.id}-{number}" for case in phantoms[:2] for number in range(3)}
    for case in found:
        for part, path in case.volumes.items():
            original = next(one for one in phantoms if case.id.startswith(one.id)).volumes[part]
            assert path.samefile(original)


@pytest.mark.parametrize("other", [0, 1])
def test_label_maps_that_differ_are_counted(other, phantoms, phantom_folder, tmp_path, monkeypatch):
    def measure(command, out, killed_at=None):
        out.mkdir()
        for case in phantoms:
            content = "other" if other and "--engine" in command and case is phantoms[0] else case.id
            (out / f"{case.id}-0.nii.gz").write_text(content)
        return {"memory_gb": 1.0, "killed": int(bool(killed_at)), "seconds_to_first": 1.0, "seconds": 2.0}

    monkeypatch.setattr(cohort_on_ray, "measure", measure)
    given = SimpleNamespace(data=phantom_folder, repeats=1, run=tmp_path / "flair", results=tmp_path)
    cohort_on_ray.run(given)
    rows = json.loads((tmp_path / "cohort_on_ray.json").read_text())["rows"]
    assert [row["different"] for row in rows.values()] == [0, other, other, other]
