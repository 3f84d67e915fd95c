"""The columns of the records: one schema, from which records, pages and made-up runs follow."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

#: Version of the columns and of the portfolios; parts of another one are measured again.
VERSION = 7
#: Columns of the terms of the margin.
INPUT, RESIDUAL = "input_term", "relative_residual"
#: Prefixes of families of columns: the distance of each attack, every additive term by name, and the two profiles by
#: the fraction of the way.
BY_ATTACK, BIAS, FORWARD, BACK = "distance_", "bias:", "margin:", "adversarial_margin:"
#: Prefixes of the families of what is measured of each attribution; `of_attribution` has more.
DELETION, RANDOMIZED, AGREEMENT = "deletion:", "randomized:", "agreement:"
SENSITIVITY, SECONDS, FAILED = "sensitivity:", "seconds:", "failed:"
#: The same where there are masks, and the share of the pixels inside, which a flat map scores.
MASS, POINTING, MASK = "mass:", "pointing:", "mask"
#: The deletion curve of a random ranking, beside which those of the attributions stand.
OF_RANDOM = f"{DELETION}random"

_WHOLE, _TEXT, _NUMBER = pa.int64(), pa.large_string(), pa.float64()


def _column(
    name: str, meaning: str, *, type: pa.DataType = _NUMBER, unit: str = "", title: str = "", prefix: str = ""
) -> pa.Field:
    """A column, or with ``prefix`` a family of them, whose ``name`` ends with a placeholder.

    Args:
        meaning, unit: for readers, in Markdown. title: above its medians, which reports show where it has one.
    """
    return pa.field(name, type, metadata={"meaning": meaning, "unit": unit, "title": title, "prefix": prefix})


def about(field: pa.Field, key: str) -> str:
    """The "meaning", "unit", "title" or "prefix" of a column."""
    return field.metadata[key.encode()].decode()


#: Every column in the order of the records, with its meaning, unit ("distance": in the norm of the run) and title.
COLUMNS = pa.schema(
    [
        _column("sample", "index in the data set", type=_WHOLE),
        _column("id", "its name there: a path, an id, else the index", type=_TEXT),
        _column("label", "missing where there is none", type=_WHOLE, unit="class"),
        _column("prediction", "of the model", type=_WHOLE, unit="class"),
        _column("rival", "whose linearized boundary is nearest", type=_WHOLE, unit="class"),
        _column("gap", "the score of the prediction minus that of the rival", unit="score"),
        _column("alignment", "α, Definition 3", unit="distance", title="α"),
        _column(
            "null",
            "what the maps of up to a hundred others score, whatever the parts",
            unit="distance",
            title="chance",
        ),
        _column("excess", "α − null", unit="distance", title="α − chance"),
        _column("rank", "the share of these maps that score below α", unit="share", title="rank of α"),
        _column("map_null", "what this sample's map scores on the same others", unit="distance"),
        _column(
            "class_excess",
            "α less what images and maps of the predicted class lead to expect; NaN without another such sample",
            unit="distance",
        ),
        _column(
            "class_variance",
            "its share in the variance of their sum where maps are exchanged within classes",
            unit="distance, squared",
        ),
        _column("binarized_alignment", "α†, of the margin over the rival", unit="distance", title="α†"),
        _column("linearized_robustness", "ρ̃, Definition 4", unit="distance", title="ρ̃"),
        _column("bias", "β† over the norm of the margin's gradient: the bias term of Theorem 1", unit="distance"),
        _column(
            "noncollinearity",
            "how far the two gradients are from parallel, times the size of the image",
            unit="distance",
        ),
        _column(
            "bound",
            "α + noncollinearity + the size of bias, never below ρ̃",
            unit="distance",
            title="upper bound, not an estimate",
        ),
        _column("direction_gap", "α† − α; with the next one the exact split of ρ̃ − α", unit="distance", title="α† − α"),
        _column("bias_gap", "ρ̃ − α†", unit="distance", title="ρ̃ − α†"),
        _column("model_passes", "forward and backward passes that ρ̃ took", type=_WHOLE),
        _column(
            "distance", "ρ, the smallest verified distance to another prediction, refined", unit="distance", title="ρ"
        ),
        _column("attack", "whose it is", type=_TEXT),
        _column(
            "reason",
            "why there is no adversarial, or why the distance may be far too large: `zero gradient`, "
            "`gradient not finite`, `no gradient`, `nothing found`, `attack raised`; empty elsewhere",
            type=_TEXT,
        ),
        _column(
            f"{BY_ATTACK}NAME",
            "what this attack found, verified, unrefined; NaN where it did not run",
            unit="distance",
            prefix=BY_ATTACK,
        ),
        _column(
            "lower_bound",
            "a certified lower bound of ρ within the bounds: no adversarial is nearer; NaN where it is not asked for",
            unit="distance",
        ),
        _column("linear_region", "l, the radius on which the scores are affine, in free space", unit="distance"),
        _column("lemma_1", "1 where l reaches ρ̃, so that ρ = ρ̃ in free space; else 0", unit=""),
        _column(INPUT, "what the input contributes to the margin", unit="score"),
        _column(f"{BIAS}NAME", "what this additive term contributes to the margin", unit="score", prefix=BIAS),
        _column(
            RESIDUAL,
            "what these terms leave of the margin, relative to the sum of their sizes; 0 for piecewise linear networks",
            unit="share",
        ),
        _column(
            "deviation",
            "mean distance of the margin from a straight line on the way to the linearized boundary",
            unit="share of the margin",
            title="deviation from 1 − t",
        ),
        _column("adversarial_deviation", "the same on the way to the nearest adversarial", unit="share of the margin"),
        _column(
            f"{FORWARD}T",
            "the margin at the fraction T of the way to the linearized boundary, relative to T = 0",
            unit="share of the margin",
            prefix=FORWARD,
        ),
        _column(f"{BACK}T", "the same on the way to the nearest adversarial", unit="share of the margin", prefix=BACK),
        *(
            _column(f"{name}:NAME", meaning, unit=unit, prefix=f"{name}:")
            for name, meaning, unit in (
                ("alignment", "the alignment of this attribution", "distance"),
                ("null", "what its maps of up to a hundred others score, whatever the parts", "distance"),
                ("excess", "the alignment minus that", "distance"),
                ("rank", "the share of these maps that score below the own one", "share"),
            )
        ),
        _column(
            f"{DELETION}NAME",
            "mean probability while what this attribution ranks highest, by size, is replaced by the mean of these "
            "images; `deletion:random` of a random ranking",
            unit="share",
            prefix=DELETION,
        ),
        _column(
            f"{RANDOMIZED}NAME",
            "rank correlation of its map with that of the network without what it learnt, all layers at once",
            unit="share",
            prefix=RANDOMIZED,
        ),
        _column(f"{AGREEMENT}A & B", "rank correlation of two attributions' maps", unit="share", prefix=AGREEMENT),
        _column(
            f"{SENSITIVITY}NAME",
            "Captum's `sensitivity_max` of three perturbations: the largest relative change of its map when the values "
            "of the image change by up to 2 % of their range",
            unit="share",
            prefix=SENSITIVITY,
        ),
        _column(
            MASK, "the share of the pixels that its mask has inside: the mass that a flat map has there", unit="share"
        ),
        _column(
            f"{MASS}NAME",
            "relevance mass accuracy: the share of the absolute values of its map inside the mask",
            unit="share",
            prefix=MASS,
        ),
        _column(
            f"{POINTING}NAME",
            "pointing game: 1 where the largest absolute value of its map lies inside the mask, else 0",
            prefix=POINTING,
        ),
        _column(f"{SECONDS}NAME", "what one of its maps took", unit="seconds", prefix=SECONDS),
        _column(f"{FAILED}NAME", "why there is no map of it", type=_TEXT, prefix=FAILED),
        _column("error", "why there is nothing else in this row", type=_TEXT),
    ]
)
_FAMILIES = {about(field, "prefix"): place for place, field in enumerate(COLUMNS) if about(field, "prefix")}


def place(name: str) -> int:
    """Where the column ``name`` stands in `COLUMNS`, a member at the place of its family; -1 for any other name."""
    if name in COLUMNS.names:
        return COLUMNS.get_field_index(name)
    return next((place for prefix, place in _FAMILIES.items() if name.startswith(prefix)), -1)


def of_attribution(name: str) -> str:
    """The prefix of the family that has the column ``name`` for each attribution."""
    return f"{name}:"


def attributions_in(names: Iterable[Any]) -> list[str]:
    """Of which attributions there are columns among ``names``."""
    return [str(name).removeprefix(SECONDS) for name in names if str(name).startswith(SECONDS)]


def column(name: str) -> pa.Field | None:
    """The column of the records that is called ``name``, or None."""
    return None if place(name) < 0 else COLUMNS.field(place(name)).with_name(name)


def title(name: str) -> str:
    """What stands above the column ``name`` in tables."""
    field = column(name)
    return name if field is None else about(field, "title") or name
