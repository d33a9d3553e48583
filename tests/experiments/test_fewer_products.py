import json

import fewer_products

from brats_tf.runtime.system import cpu_has_bfloat16


def test_both_are_right_in_small_and_the_figures_are_written(tmp_path):
    fewer_products.run(tmp_path, [((8, 10, 6), 16, 32)])
    written = json.loads((tmp_path / "fewer_products.json").read_text())
    assert written["versions"]["tensorflow"] and written["machine"]
    (row,) = written["rows"]
    assert (row["size"], row["channels"]) == ("8x10x6", "16 to 32")
    for kind in ("plain", "ours"):
        assert all(0 < row[kind][what] < 5e-6 for what in fewer_products.WHAT)
        assert 0 < row[kind]["prediction_s"] < 60 and 0 < row[kind]["step_s"] < 60
    tolerance = {"float32": 1e-5, "bfloat16": 1e-2}
    assert {row["precision"] for row in written["gradients"]} == set(tolerance if cpu_has_bfloat16() else ["float32"])
    for row in written["gradients"]:
        assert all(0 < row[kind]["seconds"] < 60 for kind in ("tensorflow", "ours"))
        assert 0 < row["ours"]["error"] < tolerance[row["precision"]]
