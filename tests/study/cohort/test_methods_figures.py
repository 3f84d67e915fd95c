import numpy as np
import pandas as pd
import pytest

from captum_alignment.study.cohort._methods_figures import robust_accuracies


def test_robust_accuracy_counts_what_is_right_and_farther_than_eps():
    frame = pd.DataFrame(
        {
            "strength": [1.0] * 8 + [0.0],
            "training_seed": [0] * 4 + [5] * 4 + [0],
            "label": [0, 1, 2, 3, 0, 0, 0, 0, 0],
            "prediction": [0, 1, 2, 0, 0, 0, 0, 0, 0],
            "distance": [0.5, 1.0, np.inf, 9.0, 2.0, 2.0, 2.0, 0.1, 0.0],
        }
    )
    found = robust_accuracies(frame, 1.0, np.array([0.0, 0.5, 1.5, 3.0]))
    assert found == pytest.approx(np.array([[0.75, 0.5, 0.25, 0.25], [1.0, 0.75, 0.75, 0.0]]))
