"""A user's file under pyright's strict rules: every public call has a type, and none is Any."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import captum_alignment

ROOT = Path(captum_alignment.__file__).parents[1]

#: What a user writes, and the type that an editor shows.
USER = """
import torch
from torch import Tensor, nn
import captum_alignment as ca
from captum_alignment import attr, metrics, robust, training

net = nn.Linear(4, 3)
x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.long)
analysis = ca.linear_analysis(net, x)
maps = ca.LinearizedRobustness(net).attribute(x)

def saliency(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    return inputs
"""
TYPES = {
    "ca.__version__": "str",
    "analysis": "LinearAnalysis[Tensor]",
    "analysis.gap": "Tensor",
    "analysis.gradient": "Tensor",
    "ca.linear_analysis(net, (x, x)).gradient": "tuple[Tensor, ...]",
    "analysis.scalars()": "dict[str, Tensor]",
    "analysis.to_dataframe()": "DataFrame",
    "ca.adversarial_distance(net, x).distance": "Tensor",
    "ca.adversarial_distance(net, x).adversarials": "Tensor",
    "ca.adversarial_distance(net, x).by_attack": "dict[str, Tensor]",
    "ca.Alignment(net)(x)": "Tensor",
    "ca.alignment(x, x)": "Tensor",
    "maps": "Tensor",
    "ca.LinearizedRobustness(net).attribute((x, x))": "tuple[Tensor, ...]",
    "ca.LinearizedRobustness(net).attribute(x, return_convergence_delta=True)": "tuple[Tensor, Tensor]",
    "ca.LinearizedRobustness(net).robustness(x)": "Tensor",
    "attr.FullGradient(net).attribute(x)": "Tensor",
    "attr.GeneratedAttribution(net, net, 'layer').attribute(x)": "Tensor",
    "metrics.alignment_null(x, maps).rank": "Tensor",
    "metrics.deletion_curve(net, x, maps, baselines=0).area": "Tensor",
    "metrics.homogeneous_decomposition(net, x).by_parameter": "dict[str, Tensor]",
    "metrics.linearity_profile(net, x).end": "Tensor",
    "metrics.median_interval(x)": "tuple[float, float, float]",
    "metrics.pointing_game(maps, maps > 0)": "Tensor",
    "metrics.randomization_check(net, saliency, x).similarity": "Tensor",
    "metrics.rank_correlation(maps, maps)": "Tensor",
    "metrics.remove_features(x, maps, 0.5, baselines=0.0)": "Tensor",
    "robust.FAB()": "FAB",
    "robust.FoolboxPerturbation(net, robust.DeepFool()).perturb(x)": "Tensor",
    "training.LocalLipschitz(1e-3)(net, x, y)": "Tensor",
    "training.LargeMargin(1.0, margin=1.0)(net, x, y)": "Tensor",
    "training.input_gradient_penalty(net(x), x, y)": "Tensor",
    "training.adversarial_examples(net, x, y, attack='pgd-l2', epsilon=0.1)": "Tensor",
    "training.soft_labels(net, x, temperature=2.0)": "Tensor",
    "training.Distillation(net, temperature=2.0)(net(x), x)": "Tensor",
    "training.LipschitzRegularization(1e-3)": "LipschitzRegularization",
    "training.RegularizationCallback(training.LocalLipschitz(0.1))": "RegularizationCallback",
}


def diagnostics(folder, code):
    """What pyright says of ``code`` as a user's file."""
    environment = Path(sys.prefix)
    config = {
        "typeCheckingMode": "strict",
        "venvPath": str(environment.parent),
        "venv": environment.name,
        "extraPaths": [str(ROOT)],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    (folder / "user.py").write_text(code)
    command = [sys.executable, "-m", "pyright", "--outputjson", "--project", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["generalDiagnostics"]


@pytest.mark.slow
def test_a_users_file_is_typed_under_strict_rules(tmp_path):
    asked = "\n".join(f"reveal_type({expression})" for expression in TYPES)
    found = diagnostics(tmp_path, f"{USER}\n{asked}\n")
    assert [item["message"] for item in found if item["severity"] != "information"] == []
    shown = [re.findall(r'is "(.*)"$', item["message"])[0] for item in found]
    assert dict(zip(TYPES, shown, strict=True)) == TYPES


@pytest.mark.slow
def test_a_name_that_does_not_exist_is_an_error_to_a_type_checker(tmp_path):
    # A module's __getattr__, if a type checker took it for a function, would make every misspelt name an Any.
    rooms = ["", *(f".{room}" for room in ("attr", "metrics", "robust", "training", "study"))]
    found = diagnostics(tmp_path, "".join(f"from captum_alignment{room} import NoSuchName\n" for room in rooms))
    unknown = [item["range"]["start"]["line"] for item in found if "is unknown import symbol" in item["message"]]
    assert unknown == list(range(len(rooms)))
