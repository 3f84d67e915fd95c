import math

import pytest

from captum_alignment.study.page import between, fixed, number, setting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (0.7, "0.700"),
        (12.3456, "12.3"),
        (123.4, "123"),
        (-0.5, "−0.500"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_fixed_numbers_and_intervals():
    assert fixed(-0.0512, 3) == "−0.051"
    assert fixed(0.5, 1, sign=True) == "+0.5"
    assert fixed(math.nan) == "–"
    assert between(-1, math.inf) == "(−1.00 to ∞)"


def test_settings_are_written_as_the_command_takes_them():
    assert setting([0.0, 0.03, 10.0]) == "0, 0.03, 10"
    assert (setting(None), setting(5), setting("sgd")) == ("all", "5", "sgd")
