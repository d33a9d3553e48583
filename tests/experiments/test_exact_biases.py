import json

import exact_biases


def test_tensorflow_loses_a_bias_in_bfloat16_and_ours_does_not(tmp_path):
    exact_biases.run(tmp_path, [(32, 32, 36)])
    written = json.loads((tmp_path / "exact_biases.json").read_text())
    assert written["versions"]["tensorflow"] and written["machine"]
    rows = {row["precision"]: row for row in written["rows"]}
    assert {row["size"] for row in rows.values()} == {"32x32x36"}
    assert rows["bfloat16"]["tensorflow"]["error"] > 0.1 > 0.01 > rows["bfloat16"]["ours"]["error"]
    assert rows["float32"]["tensorflow"]["error"] < 1e-4 and rows["float32"]["ours"]["error"] < 1e-4
