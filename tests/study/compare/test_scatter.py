import numpy as np

from captum_alignment.study.compare._scatter import Cloud, scatter_panels, upto


def test_many_points_become_a_density():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 6000)
    few, many = scatter_panels([Cloud("few", x[:9], x[:9]), Cloud("many", x, x)], ("distance", "distance"), None).axes
    assert len(few.collections[0].get_offsets()) == 9  # pyright: ignore[reportArgumentType]
    assert float(np.sum(many.collections[0].get_array())) > 5900  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_nearly_all_values_stay_below_the_limit():
    assert upto(np.array([])) == upto(np.zeros(3)) == (0.0, 1.0)
    values = np.arange(1000.0)
    low, high = upto(values)
    assert low == 0
    assert 0.99 * 999 < high / 1.05 < 999


def test_a_cloud_says_its_correlation_or_that_it_has_too_few_points():
    x = np.arange(9.0)
    clouds = [Cloud("a", x, -x), Cloud("b", x, x), Cloud("c", x[:2], x[:2])]
    axes = scatter_panels(clouds, ("linearized_robustness", "alignment"), None).axes
    assert [one.get_title(loc="right") for one in axes] == ["r = -1.00", "r = 1.00", "too few"]
