from typing import Any

import numpy as np
import pytest

from captum_alignment.study.compare import summarise_runs, write_runs_report
from captum_alignment.study.compare._epsilons import DEFAULTS, as_text, checked, epsilon
from captum_alignment.study.compare._tables import summary_tables
from tests.study.runs import make_run

BOUNDS: dict[str, Any] = {"bounds": [0, 1], "shape": [3, 8, 8]}


def test_sizes_as_people_write_them():
    assert [epsilon(text) for text in ("0.5", "8/255", "2")] == [0.5, 8 / 255, 2]
    assert [as_text(eps) for eps in (0.0, 0.5, 8 / 255, 0.1, 2.0, 0.2)] == ["0", "0.5", "8/255", "0.1", "2", "0.2"]
    for text in ("", "eight", "1/0", "8/2/3"):
        with pytest.raises(ValueError, match=r"epsilons: got .*, expected sizes such as 0\.5 or 8/255"):
            epsilon(text)


@pytest.mark.parametrize("norm", DEFAULTS)
def test_of_one_norm_they_are_the_same_everywhere_unless_somebody_says_so(norm):
    assert checked(None, {"norm": norm}) == checked(None, {"norm": norm, **BOUNDS}) == DEFAULTS[norm]
    assert checked([0.5, 0.25, 0.5], {"norm": norm, **BOUNDS}) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("eps", "norm", "message"),
    [
        (-1, "2", "got -1, expected positive"),
        (0, "2", "got 0, expected positive"),
        (float("nan"), "2", "got nan"),
        (float("inf"), "2", "got inf"),
        (8, "inf", r"got 8, but no two images are farther apart than 1; did you mean 8/255\?"),
        (14, "2", r"got 14, but no two images are farther apart than 13\.86"),
    ],
)
def test_sizes_out_of_range(eps, norm, message, tmp_path):
    with pytest.raises(ValueError, match=f"epsilons: {message}"):
        write_runs_report(tmp_path / "r.html", [make_run(norm=norm, **BOUNDS)], [0.5, eps])
    assert not (tmp_path / "r.html").exists()


def test_the_table_is_what_the_distances_say():
    run = make_run(n=50)
    records: Any = run.records
    records["lower_bound"] = np.where(np.isinf(records["distance"]), 0.1, records["distance"] / 2)
    (row,) = summarise_runs([run], [0.5, 1]).to_dict("records")
    right = (records["label"] == records["prediction"]).to_numpy()
    found = np.isfinite(records["distance"])
    for eps in (0.5, 1):
        assert row[f"robust@{eps:g}"] == (right & found & (records["distance"] > eps)).mean()
        assert row[f"certified@{eps:g}"] == (right & (records["lower_bound"] > eps)).mean()
        assert row[f"certified@{eps:g}"] <= row[f"robust@{eps:g}"]
        assert row[f"robust@{eps:g}_low"] < row[f"robust@{eps:g}"] < row[f"robust@{eps:g}_high"]
    table = summary_tables([run], summarise_runs([run]), [[run]], [0.5, 1])["robust-accuracy"]
    assert [column.head for column in table.columns] == ["ε", run.name, f"{run.name}, certified"]
    expected = [(right & found).mean(), row["robust@0.5"], row["robust@1"]]
    np.testing.assert_allclose(table.frame["0.0"], expected)
    np.testing.assert_allclose(table.frame["0.1"][1:], [row["certified@0.5"], row["certified@1"]])
