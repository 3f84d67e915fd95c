"""Distances to the decision boundary and the attacks that find them, in Foolbox's terms."""

from captum_alignment.robust._distance import AdversarialDistance, adversarial_distance
from captum_alignment.robust._gradient_attack import GradientAttack

__all__ = ["AdversarialDistance", "GradientAttack", "adversarial_distance"]
