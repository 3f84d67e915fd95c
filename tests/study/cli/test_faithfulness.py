import pytest

from captum_alignment.study.cli import main

TINY = ["--train-size", "60", "--test-size", "30", "--epochs", "1", "--seeds", "1", "--fractions", "0.5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainings", "magic"], "trainings: got 'magic'"),
        (["--network", "vgg"], "--network: got 'vgg', expected 'small' or"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--epochs", "0"], "epochs: got 0"),
        (["--train-size", "9999"], "--train-size: got 9999"),
    ],
)
def test_bad_options_are_named_and_leave_nothing(tmp_path, options, message, capsys):
    assert main(["supplement", "--out", str(tmp_path / "out"), *TINY, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
