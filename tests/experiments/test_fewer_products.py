import json

import fewer_products


def test_both_are_right_in_small_and_the_figures_are_written(tmp_path):
    fewer_products.run(tmp_path, [((8, 10, 6), 16, 32)])
    written = json.loads((tmp_path / "fewer_products.json").read_text())
    assert written["versions"]["tensorflow"] and written["machine"]
    (row,) = written["rows"]
    assert (row["size"], row["channels"]) == ("8x10x6", "16 to 32")
    for kind in ("plain", "ours"):
        assert all(0 < row[kind][what] < 5e-6 for what in fewer_products.WHAT)
        assert 0 < row[kind]["prediction_s"] < 60 and 0 < row[kind]["step_s"] < 60
