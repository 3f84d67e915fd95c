"""What the user names, loaded: models, data sets and devices, each failure one sentence that says what was expected.

`load_model` and `load_dataset` take the specifications of the command line; `Split` holds images in memory, `Samples`
reads those of any data set one by one, in whatever form `as_dataset` takes.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.load._adapters import Autocast, Logits, evaluation_mode, without_exit
    from captum_alignment.study.load._attributions import (
        BUILT_IN,
        RANDOM,
        MapFunction,
        NamedAttribution,
        resolve_attributions,
        resolve_methods,
    )
    from captum_alignment.study.load._datasets import load_dataset
    from captum_alignment.study.load._device import as_device
    from captum_alignment.study.load._factories import did_you_mean, reason, short_name
    from captum_alignment.study.load._forms import FORMS
    from captum_alignment.study.load._given import Features, as_dataset
    from captum_alignment.study.load._masks import Masks
    from captum_alignment.study.load._models import LoadedModel, load_model
    from captum_alignment.study.load._samples import Sample, Samples
    from captum_alignment.study.load._splits import Data, Split, as_split, drawn, load_data, split_hash

__all__ = [
    "BUILT_IN",
    "FORMS",
    "RANDOM",
    "Autocast",
    "Data",
    "Features",
    "LoadedModel",
    "Logits",
    "MapFunction",
    "Masks",
    "NamedAttribution",
    "Sample",
    "Samples",
    "Split",
    "as_dataset",
    "as_device",
    "as_split",
    "did_you_mean",
    "drawn",
    "evaluation_mode",
    "load_data",
    "load_dataset",
    "load_model",
    "reason",
    "resolve_attributions",
    "resolve_methods",
    "short_name",
    "split_hash",
    "without_exit",
]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "_adapters": ["Autocast", "Logits", "evaluation_mode", "without_exit"],
        "_attributions": [
            "BUILT_IN",
            "RANDOM",
            "MapFunction",
            "NamedAttribution",
            "resolve_attributions",
            "resolve_methods",
        ],
        "_datasets": ["load_dataset"],
        "_device": ["as_device"],
        "_factories": ["did_you_mean", "reason", "short_name"],
        "_forms": ["FORMS"],
        "_given": ["Features", "as_dataset"],
        "_masks": ["Masks"],
        "_models": ["LoadedModel", "load_model"],
        "_samples": ["Sample", "Samples"],
        "_splits": ["Data", "Split", "as_split", "drawn", "load_data", "split_hash"],
    },
)
