import numpy as np
import pandas as pd

from captum_alignment.study.faithfulness import verdict


def make_table(n, noise=0.0):
    rng = np.random.default_rng(0)
    distance = np.linspace(0.5, 1.5, n)
    return pd.DataFrame({"distance": distance, "area": 1 - distance / 3 + noise * rng.normal(size=n), "usable": True})


def test_the_verdict_claims_no_more_than_the_number_of_networks_allows():
    assert "3 usable networks are too few" in verdict(make_table(3))
    assert "too few for an interval, and so for a conclusion" in verdict(make_table(6))
    assert "robustness goes with faithfulness" in verdict(make_table(14, 0.02))
    assert "no correlation can be told from chance" in verdict(make_table(14, 5.0))
    flipped = make_table(14, 0.02)
    assert "goes against" in verdict(flipped.assign(area=-flipped["area"]))
    assert "Over 12 usable" in verdict(make_table(14).assign(usable=[False] * 2 + [True] * 12, area=np.arange(14) % 5))
    assert "no correlation" in verdict(make_table(6).assign(area=0.5))
