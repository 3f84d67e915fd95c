"""Several methods side by side: a study of each, on the same samples, and one report that compares them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_alignment.study.cohort._config import StudyConfig
from captum_alignment.study.cohort._methods_report import write_methods_report
from captum_alignment.study.cohort._study import STUDY, StudyResult, run_study
from captum_alignment.study.store import open_folder, whole_file

KIND = "study of methods"
#: What studies of the same data and seeds share: plain networks, teachers, and the maps made of them.
_SHARED = ("models/strength-0_seed-*.pt", "evaluations/strength-0_seed-*/**/*", "teachers/*", "targets/**/*")


@dataclass(frozen=True)
class MethodsResult:
    """The study of each method, by its name, and the path of the report that compares them."""

    studies: dict[str, StudyResult]
    report: Path


def run_methods(
    configs: Sequence[StudyConfig],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    download: bool = False,
    device: str = "cpu",
) -> MethodsResult:
    """A study of every configuration, each in the folder ``out / regularizer``, and a report that compares them.

    Networks that several methods need, plain ones first of all, are trained and measured once.

    Args:
        configs: they differ in regularizer and strengths only.
        out, data_root, download, device: as in `run_study`.

    Raises:
        ValueError, FileNotFoundError: as `run_study`; configurations that differ in anything else.
    """
    out = Path(out)
    common, *others = (_without_method(config) for config in configs)
    if any(other != common for other in others):
        raise ValueError("configs: got some that differ in more than regularizer and strengths, expected nothing else")
    names = [config.regularizer for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"regularizers: got {' '.join(names)}, expected each once")
    methods = {config.regularizer: list(config.strengths) for config in configs}
    open_folder(out, KIND, {"methods": methods, **common})
    studies: dict[str, StudyResult] = {}
    for config in configs:
        folder = out / config.regularizer
        open_folder(folder, STUDY, config.as_dict())
        for done in studies:
            _share(out / done, folder)
        studies[config.regularizer] = run_study(config, folder, data_root=data_root, download=download, device=device)
    report = out / "report.html"
    write_methods_report(report, {config.regularizer: (config, studies[config.regularizer]) for config in configs})
    return MethodsResult(studies, report)


def _without_method(config: StudyConfig) -> dict[str, object]:
    return {key: value for key, value in config.as_dict().items() if key not in ("regularizer", "strengths")}


def _share(source: Path, folder: Path) -> None:
    """Copy into ``folder`` what it lacks and would make once more."""
    for pattern in _SHARED:
        # The manifest first: a folder that has files but no manifest is taken for another's.
        for path in sorted(source.glob(pattern), key=lambda path: (path.name != "manifest.json", path)):
            target = folder / path.relative_to(source)
            if path.is_file() and not target.exists():
                with whole_file(target) as temporary:
                    shutil.copyfile(path, temporary)
