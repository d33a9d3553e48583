import json

import exact_normalisation


def test_both_are_right_in_small_and_the_figures_are_written(tmp_path):
    exact_normalisation.run(tmp_path, [(8, 8, 6)])
    written = json.loads((tmp_path / "exact_normalisation.json").read_text())
    assert written["versions"]["keras"] and written["machine"]
    (row,) = written["rows"]
    assert row["size"] == "8x8x6"
    for kind in ("keras", "ours"):
        assert 0 < row[kind]["error"] < 1e-5 and 0 < row[kind]["gradient_error"] < 1e-5
        assert 0 < row[kind]["seconds"] < 60
