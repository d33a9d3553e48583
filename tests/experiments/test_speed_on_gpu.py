"""Milliseconds of networks on JAX and PyTorch; here on the CPU, at a small size."""

import importlib.util
import json

import pytest
import speed_on_gpu

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the package jax")


def measured(folder, *arguments):
    code = speed_on_gpu.main(["--results", str(folder), "--precisions", "float32", "--batches", "1", *arguments])
    path = folder / "speed_on_gpu.json"
    return code, json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


@pytest.mark.large
def test_passes_and_steps_are_measured(on_cpu, tmp_path):
    code, found = measured(tmp_path, "--networks", "embedding-plus", "--crop", "32", "32", "24", "--commit", "c")
    assert code == 0 and found["device"] == "cpu" and found["commit"] == "c"
    forward, step = found["rows"]
    assert (forward["what"], step["what"]) == ("forward", "step")
    assert 0 < forward["milliseconds"] < step["milliseconds"]
    weights_gb = 4 * 6_296_746 / 1e9
    assert weights_gb < forward["gigabytes"] < step["gigabytes"] < 1
    assert step["gigabytes"] > 3 * weights_gb  # Adam's two moments.


@pytest.mark.slow
def test_a_network_that_cannot_be_built_is_left_out(on_cpu, tmp_path, capsys):
    code, found = measured(tmp_path, "--networks", "embedding-plus", "--crop", "30", "32", "24")
    assert code == 2 and found is None
    printed = capsys.readouterr()
    assert "Left out: embedding-plus, float32, batch 1; its process ended." in printed.out
    assert "None of 1 networks could be measured." in printed.err
