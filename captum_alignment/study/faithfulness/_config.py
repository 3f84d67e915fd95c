"""The choices of the study of faithfulness, without anything that is slow to import."""

from typing import Any

from captum_alignment.study.fit import STANDARD, TRAININGS

#: How its networks can be trained.
CHOICES = (STANDARD, *TRAININGS)
#: What it does where nothing else is said.
DEFAULTS: dict[str, Any] = {
    "trainings": (STANDARD, "distillation", "lipschitz", "pgd-l2", "pgd-linf"),
    "seeds": 2,
}
