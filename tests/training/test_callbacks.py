import json
from contextlib import contextmanager
from types import SimpleNamespace

import keras

from brats_tf.config.config import Config
from brats_tf.regions import REGIONS
from brats_tf.training.callbacks import WarnOfDivergence
from brats_tf.training.optimisation import ResumableReduceLROnPlateau
from brats_tf.training.validation import VALIDATION_DICE, Validate


def test_a_finite_loss_above_that_of_the_first_epoch_is_said(capsys):
    watch = WarnOfDivergence("embedding-flair")
    for epoch, loss in enumerate((0.1, -0.5, -0.2, 0.1)):
        watch.on_epoch_end(epoch, {"loss": loss})
    assert capsys.readouterr().out == ""
    resumed = WarnOfDivergence("embedding-flair")
    resumed.restore(watch.state())
    resumed.on_epoch_end(4, {"loss": 4.4})
    said = " ".join(capsys.readouterr().out.split())
    assert "embedding-flair epoch 5: the loss is 4.40, more than in the first epoch; it was -0.50 in epoch 2." in said
    assert resumed.state() == {"first": 0.1, "least": (-0.5, 2)}


def test_a_plateau_is_counted_on_after_a_resume():
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(1.0))
    rates, saved = [], None
    for epoch in range(7):
        callback = ResumableReduceLROnPlateau(monitor="loss", mode="min", patience=3)  # A process of its own.
        callback.set_model(model)
        callback.on_train_begin()
        if saved:
            callback.restore(json.loads(saved))
        callback.on_epoch_end(epoch, {"loss": 1.0})
        saved = json.dumps(callback.state())
        rates.append(round(float(model.optimizer.learning_rate), 6))
    assert rates == [1, 1, 1, 0.1, 0.1, 0.1, 0.01]


def test_it_is_the_average_of_the_weights_that_is_validated(tmp_path, monkeypatch):
    inside = []

    @contextmanager
    def averaged():
        inside.append(True)
        yield
        inside.clear()

    config = Config.from_preset("embedding", modalities=("t1",), validation_frequency=1, epochs=1)
    data = SimpleNamespace(config=config, validation=[SimpleNamespace(id="Case_1")])
    callback = Validate(data, tmp_path, None, averaged=averaged, between_cases=lambda: None, writes=False)
    monkeypatch.setattr(callback, "_scores", lambda case: dict.fromkeys(REGIONS, float(bool(inside))))
    callback.set_params({"epochs": 1})
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs[VALIDATION_DICE] == 1 and not inside
