"""The recipes of ``docs/howto/ecosystem.md``, run as they stand where the library is installed."""

# pyright: reportMissingImports=false
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "ecosystem.md").read_text("utf-8")
SECTIONS = {
    title.strip(): re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    for title, text in re.findall(r"^#+ (.*?)\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if "```python" in text
}
SETUP = SECTIONS.pop("The ecosystem")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own deprecations

# What a recipe must be there for; the line that imports the library is not counted.
LIBRARIES = {
    "Quantus, our maps in its metrics": "quantus",
    "Quantus, its explanations in ours": "quantus",
    "torchmetrics": "torchmetrics",
    "Hugging Face transformers": "transformers",
    "timm": "timm",
    "Weights & Biases": "wandb",
    "TensorBoard": "tensorboard",
    "MLflow": "mlflow",
    "fastai": "fastai",
    "Composer": "composer",
    "accelerate": "accelerate",
    "Ignite": "ignite",
}


def run(title, folder) -> dict[str, Any]:
    pytest.importorskip(LIBRARIES[title], exc_type=ImportError)
    names: dict[str, Any] = {"__name__": "recipe", "folder": str(folder)}
    exec(SETUP, names)
    exec(SECTIONS[title], names)
    return names


def test_every_recipe_has_a_library_and_at_most_three_lines():
    assert list(SECTIONS) == list(LIBRARIES)
    for title, block in SECTIONS.items():
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) - 1 <= (4 if "class " in block else 3), title  # and the line of its class


def test_quantus_scores_our_maps(tmp_path):
    scores = run("Quantus, our maps in its metrics", tmp_path)["scores"]
    assert len(scores) == 16
    assert all(0 <= score <= 1 for score in scores)


def test_explanations_of_quantus_are_scored(tmp_path):
    names = run("Quantus, its explanations in ours", tmp_path)
    gradient = names["maps"]
    assert gradient.shape == (16, 1, 8, 8)
    assert names["found"].alignment.shape == (16,)
    assert names["found"].alignment.isfinite().all()


def test_torchmetrics(tmp_path):
    names = run("torchmetrics", tmp_path)
    assert names["median"] == pytest.approx(float(names["analysis"].alignment.quantile(0.5)))


@pytest.mark.parametrize("title", ["Hugging Face transformers", "timm"])
def test_models_of_others(title, tmp_path):
    found = run(title, tmp_path)["found"]
    assert found.linearized_robustness.isfinite().all()


def test_weights_and_biases(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    run("Weights & Biases", tmp_path)
    assert list(tmp_path.rglob("*.wandb"))


def test_tensorboard(tmp_path):
    run("TensorBoard", tmp_path)
    assert list(tmp_path.glob("events*"))


def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no database
    names = run("MLflow", tmp_path)
    try:
        logged = names["mlflow"].active_run().info.run_id
        metrics = names["mlflow"].get_run(logged).data.metrics
        assert metrics["alignment"] == pytest.approx(names["analysis"].alignment.double().median().item())
    finally:
        names["mlflow"].end_run()


def by_hand(names, steps, lr):
    """Parameters after plain steps of SGD on the loss and the term."""
    optimizer = torch.optim.SGD(names["net"].parameters(), lr=lr)
    for _ in range(steps):
        x, y = names["x"], names["y"]
        loss = nn.functional.cross_entropy(names["net"](x), y) + names["term"](names["net"], x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in names["net"].parameters()]


def test_fastai_adds_the_term_to_what_is_differentiated(tmp_path):
    names = run("fastai", tmp_path)
    import fastai.callback.progress  # noqa: F401 - brings no_bar
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD

    names["term"].weight = 1.0
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(names["x"], names["y"]), batch_size=16)
    start = {key: value.clone() for key, value in names["net"].state_dict().items()}
    loaders = DataLoaders(data, data, device=torch.device("cpu"))
    learner = Learner(
        loaders, names["net"], loss_func=nn.CrossEntropyLoss(), opt_func=SGD, cbs=names["Regularize"](), path=tmp_path
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, lr=0.1, wd=0.0)
    found = [p.detach().clone() for p in names["net"].parameters()]
    names["net"].load_state_dict(start)
    for mine, theirs in zip(by_hand(names, 1, 0.1), found, strict=True):
        torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=1e-4)


def test_composer_adds_the_term_to_what_is_differentiated(tmp_path):
    names = run("Composer", tmp_path)
    from composer import Trainer
    from composer.models import ComposerClassifier

    names["term"].weight = 1.0
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(names["x"], names["y"]), batch_size=16)
    start = {key: value.clone() for key, value in names["net"].state_dict().items()}
    model = ComposerClassifier(names["net"], num_classes=10)
    trainer = Trainer(
        model=model, train_dataloader=data, max_duration="1ba", device="cpu", callbacks=[names["Regularize"]()],
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1), progress_bar=False,
    )  # fmt: skip
    trainer.fit()
    found = [p.detach().clone() for p in names["net"].parameters()]
    names["net"].load_state_dict(start)
    for mine, theirs in zip(by_hand(names, 1, 0.1), found, strict=True):
        torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("title", ["accelerate", "Ignite"])
def test_loops_differentiate_loss_and_term(title, tmp_path):
    names = run(title, tmp_path)
    found = [p.grad.clone() for p in names["net"].parameters()]
    names["net"].zero_grad()
    loss = nn.functional.cross_entropy(names["net"](names["x"]), names["y"])
    (loss + names["term"](names["net"], names["x"], names["y"])).backward()
    for mine, theirs in zip(names["net"].parameters(), found, strict=True):
        torch.testing.assert_close(theirs, mine.grad)
