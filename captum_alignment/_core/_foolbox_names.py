"""Foolbox's names. Only this module imports them: the first import of foolbox warns, whichever way it is reached."""
# ruff: noqa: F401, F403 - what others import from here

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # foolbox imports a namespace that scipy has deprecated
    from foolbox import distances
    from foolbox.attacks import *  # pyright: ignore[reportWildcardImportFromLibrary]
    from foolbox.attacks.base import (
        Attack,
        FixedEpsilonAttack,
        MinimizationAttack,
        Repeated,
        get_criterion,
        get_is_adversarial,
        raise_if_kwargs,
        verify_input_bounds,
    )
    from foolbox.attacks.gradient_descent_base import BaseGradientDescent
    from foolbox.criteria import Misclassification, TargetedMisclassification
    from foolbox.models import Model, PyTorchModel, TransformBoundsWrapper
