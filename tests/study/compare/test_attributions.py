"""The table of attributions is what the records say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from captum_alignment.study.compare import report
from captum_alignment.study.compare._attributions import (
    LOCALISATION,
    METRICS,
    attribution_figure,
    attribution_table,
    has_attributions,
    summarise_attributions,
)
from captum_alignment.study.evaluation import evaluate, read_run
from tests.study.evaluation.test_evaluate import Images, network
from tests.study.figures import faults
from tests.study.runs import make_run

NAMES = ("saliency", "gradcam", "input-x-gradient")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "mine"

    def failing(model, images, targets):
        if (images - Images().images[4]).abs().amax((1, 2, 3)).min() < 1e-6:
            raise RuntimeError("not this one")
        return torch.ones_like(images)

    given = {**dict(zip(NAMES, NAMES, strict=True)), "constant": failing}
    evaluate(network(), Images(), out=out, attacks="deepfool", attributions=given)
    return out


def test_medians_are_those_of_the_records(folder):
    run = read_run(folder)
    frame = summarise_attributions([run]).set_index("attribution")
    assert list(frame.index) == [*NAMES, "constant"]
    records = run.records
    for name in NAMES:
        row = frame.loc[name]
        assert row["n"] == len(records)
        assert row["excess"] == np.median(records[f"excess:{name}"])
        assert row["gain"] == np.median(records["deletion:random"] - records[f"deletion:{name}"])
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert 0 <= row["deletion"] <= 1
    assert frame.loc["constant", "failed"] == 1
    assert frame.loc["constant", "n"] == len(records) - 1
    both = [records[f"agreement:saliency & {other}"] for other in NAMES[1:]]
    assert frame.loc["saliency", "agreement"] == pytest.approx(np.median(np.mean(both, axis=0)))
    assert np.isnan(frame.loc["constant", "agreement"])


def test_the_report_has_them_and_others_do_not(folder, tmp_path):
    text = report([folder], out=tmp_path / "a.html").read_text("utf-8")
    assert "Attributions side by side" in text
    assert all(name in text for name in NAMES)
    assert not has_attributions([make_run()])
    heads = [column.head for column in attribution_table([read_run(folder)]).columns]
    assert heads == ["attribution", "samples", "failed", *METRICS.values()]


def test_the_figure_has_a_row_for_each_attribution_and_a_panel_for_each_metric(folder):
    figure = attribution_figure([read_run(folder)])
    assert faults(figure) == []
    labels = [axes.get_xlabel() for axes in figure.axes]
    metrics = [METRICS[name] for name in ("excess", "gain", "randomized", "sensitivity")]
    units = [" (l₂)", "\n(probability)", "", "\n(relative change)"]
    assert labels == [metric + unit for metric, unit in zip(metrics, units, strict=True)]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [*NAMES, "constant"]


def test_masks_add_columns_to_those_runs_alone(folder):
    run = read_run(folder)
    plain = attribution_table([run]).columns
    masked = pd.DataFrame({name: run.records[name] for name in run.records})
    hits = np.arange(len(masked)) % 4 == 0
    masked = masked.assign(mask=0.25, **{f"mass:{name}": 0.5 for name in (*NAMES, "constant")})
    masked = masked.assign(**{f"pointing:{name}": hits.astype(float) for name in (*NAMES, "constant")})
    table = attribution_table([replace(run, records=masked)])
    assert table.columns[: len(plain)] == plain
    assert [column.head for column in table.columns[len(plain) :]] == [*LOCALISATION.values()]
    row = table.frame.iloc[0]
    assert (row["mass"], row["mask"], row["pointing"]) == (0.5, 0.25, hits.mean())
    assert row["pointing_low"] < row["pointing"] < row["pointing_high"]
