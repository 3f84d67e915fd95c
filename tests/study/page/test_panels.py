import numpy as np
from matplotlib.figure import Figure

from captum_alignment.study.page import Cloud, link_panel, profile_panels, scatter_panels, terms_panel, upto


def test_nearly_all_values_stay_below_the_limit():
    assert upto(np.array([])) == (0.0, 1.0)
    assert upto(np.zeros(3)) == (0.0, 1.0)
    low, high = upto(np.arange(1000.0))
    assert (low, high < 1.05 * 999) == (0.0, True)


def test_a_cloud_says_its_correlation_or_that_it_is_left_out():
    x = np.arange(9.0)
    clouds = [Cloud("a", x, -x), Cloud("b", x, x, usable=False), Cloud("c", x[:2], x[:2])]
    axes = scatter_panels(clouds, ("linearized_robustness", "alignment"), None).axes
    assert [one.get_title(loc="right") for one in axes] == ["r = -1.00", "left out", "too few"]


def test_profiles_stand_beside_the_straight_line():
    forward, back = Figure().subplots(1, 2)
    t = np.array([0.0, 1.0])
    profile_panels(forward, back, [(forward, t, 1 - t, "mine", {"color": "red"})])
    assert [str(line.get_label()) for line in forward.get_lines()][:2] == ["mine", "1 − t, linear"]
    assert len(back.get_lines()) == 2


def test_a_term_that_is_not_there_is_a_dash_and_the_input_has_no_shade():
    axes = Figure().subplots()
    terms_panel(axes, np.array([[0.5, 0.9], [np.nan, 0.1]]), ["0.bias"], ["a", "b"])
    assert [text.get_text() for text in axes.texts] == ["50.0", "90.0", "–", "10.0"]
    assert np.isnan(np.ma.filled(axes.images[0].get_array(), np.nan)[0]).all()


def test_points_of_the_link_have_their_markers():
    axes = Figure().subplots()
    x = np.arange(3.0)
    link_panel(axes, (x, x - 1, x + 1), (x, x - 1, x + 1), ["r", "g", "b"], ["o", "s", "o"])
    assert [len(np.asarray(marks.get_offsets())) for marks in axes.collections[2:]] == [2, 1]
