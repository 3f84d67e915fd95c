"""The supplement of Zeng et al. 2021 as a study: do robust networks have faithful saliency?

`run_faithfulness` trains networks in several ways, measures them and runs ROAR of the saliency of each; `explain_study`
does the last of it for the networks of a finished study.
"""

from typing import TYPE_CHECKING

from captum_alignment._optional import on_first_use

if TYPE_CHECKING:
    from captum_alignment.study.faithfulness._config import CHOICES, DEFAULTS
    from captum_alignment.study.faithfulness._report import verdict
    from captum_alignment.study.faithfulness._run import explain_study, run_faithfulness

__all__ = ["CHOICES", "DEFAULTS", "explain_study", "run_faithfulness", "verdict"]

# Loaded on first use: the command line reads names from here before anything that is slow is needed.
__getattr__, __dir__ = on_first_use(
    __name__,
    {"_config": ["CHOICES", "DEFAULTS"], "_report": ["verdict"], "_run": ["explain_study", "run_faithfulness"]},
)
