from brats_tf.training.callbacks import WarnOfDivergence


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
