"""Evaluating one model on one data set: a row per sample, in parts that are shared, resumed and merged."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from captum_alignment.study.evaluation._batches import BatchSize
from captum_alignment.study.evaluation._config import EvaluationConfig
from captum_alignment.study.evaluation._gallery import GalleryMaps
from captum_alignment.study.evaluation._plan import Plan, make_plan
from captum_alignment.study.evaluation._records import (
    KIND,
    gallery_file,
    is_whole,
    merge_parts,
    missing_parts,
    ordered,
    part_file,
    read_records,
    records_file,
    whole_gallery,
    write_table,
)
from captum_alignment.study.evaluation._sealed import write_sealed_arrays
from captum_alignment.study.evaluation._work import Work
from captum_alignment.study.load import evaluation_mode, without_exit
from captum_alignment.study.store import open_folder, processes


def evaluate(
    model: Any,
    dataset: Any,
    *,
    out: str | Path | None = None,
    attacks: Any = "fast",
    attributions: Any = None,
    masks: Any = None,
    norm: float = 2,
    bounds: tuple[float, float] = (0, 1),
    certify: str | None = None,
    candidates: int | None = None,
    subset: int | None = None,
    seed: int = 0,
    part_size: int | None = None,
    batch_size: int | str = "auto",
    precision: str = "float32",
    num_workers: int = 0,
    strict: bool = False,
    show_progress: bool = False,
    shown: Sequence[int] | None = None,
    about: dict[str, Any] | None = None,
    read: bool = True,
) -> pd.DataFrame:
    """Measure robustness, alignment and what links them for every sample of ``dataset``.

    With ``out`` the rows are written there in numbered parts; the same call continues what was interrupted and repeats
    nothing. Under torchrun, or with a process group of the caller's, the processes share the parts. The model leaves as
    it came; images go to the device of its parameters.

    Args:
        model: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1, for images
            (N, C, H, W); its input normalisation inside. For a Hugging Face classifier, ``Logits(model)``.
        dataset: ``dataset[i]`` is an image or (image, label), i from 0 to len - 1: PIL images, uint8 arrays or tensors,
            or floating ones inside ``bounds``, all of one shape. ``dataset.classes`` and ``dataset.ids`` name classes
            and samples where they are there. Also a pair (x, y) of arrays, a `DataLoader`, rows with ``image`` and
            ``label``, and `Features`, which are no images.
        out: folder, new, empty, or of this evaluation; None keeps the records in memory.
        attacks: as in `adversarial_distance`: names, ``FILE.py:NAME``, attacks.
        attributions: names, ``FILE.py:NAME``, ``captum.attr:NAME``, or {name: attribution}: Captum's classes, its
            attributions of the model, or functions of (model, images, targets); of each map the alignment with its
            chance level, the deletion curve, the randomisation check, agreement with the others, stability and cost.
        masks: where the objects are, for relevance mass accuracy and the pointing game of every map: a folder of images
            called as the samples' ids, or for each sample of ``dataset`` an array (H, W) or None; not 0 is inside.
        norm, bounds, candidates: as in `adversarial_distance` and `linear_analysis`.
        certify: the effort of `certified_distance`, "fast", "medium" or "thorough", for bounds of rho from below, and
            the radius of the linear region; None is none. A network that cannot be certified is measured without.
        subset: so many samples, drawn without replacement by ``seed``; None is all.
        part_size: samples of one part; None is 100, and 32 for images of more than 64 x 64 pixels. So many are each
            other's chance level of alignment, far apart in the data set, whatever the parts and the processes.
        batch_size: samples that go through the model at once, or "auto": large, and halved when memory ends.
        precision: "float32" leaves the model as it is; "bfloat16" and "float16" run it under autocast.
        num_workers: processes that read ahead.
        strict: raise at the first sample that cannot be measured, instead of recording the reason.
        show_progress: a progress bar on the first process.
        shown: samples whose maps are kept for the report; None: those with the smallest and largest distances.
        about: anything else that tells this evaluation from another, as JSON can hold it; it adds to the configuration
            and overrides the names of model and data set in it.
        read: False returns an empty table and leaves the records in ``out``, so that memory does not grow with them.

    Returns:
        One row per sample, ordered by ``sample``; ``docs/evaluate.md`` lists the columns. A sample that could not be
        read or measured has the reason in ``error`` and no numbers.

    Raises:
        ValueError, TypeError: arguments out of range; a model that fails on the images; labels it has no class for; a
            folder that holds something else, or an evaluation of another configuration (the difference is shown).
        MemoryError: a single sample does not fit into memory.
    """
    config = EvaluationConfig(
        attacks=attacks,
        attributions=attributions,
        masks=masks,
        norm=norm,
        bounds=bounds,
        certify=certify,
        candidates=candidates,
        subset=subset,
        seed=seed,
        part_size=part_size,
        batch_size=batch_size,
        precision=precision,
        num_workers=num_workers,
        strict=strict,
    )
    if out is None and not read:
        raise ValueError("read: got False without out, expected a folder that keeps the records")
    with without_exit(), evaluation_mode(model), processes() as group:
        plan = make_plan(model, dataset, config)
        size = BatchSize(config.batch_size, plan.model, plan.like)
        work = Work(plan, size, GalleryMaps(shown))
        if out is None:
            if group.size > 1:
                raise ValueError("out: got None with several processes, expected a folder, where they join their parts")
            with _bar(plan, range(plan.parts), show_progress, plan.manifest["model"]) as bar:
                return ordered(records for _, records in work.parts(range(plan.parts), bar))
        folder, manifest = Path(out), {**plan.manifest, **(about or {})}
        todo = group.from_first(lambda: _open(folder, manifest, plan.parts))
        with _bar(plan, todo, show_progress and group.rank == 0, folder.name) as bar:
            mine = group.share(todo, lambda parts: bar.update(_samples(plan, parts)))
            for part, records in work.parts(mine, bar):
                write_table(part_file(folder, part), records, batch_size=size.size)
            bar.set_postfix_str("waiting for other processes" if group.size > 1 else "")
            group.wait()
        group.from_first(lambda: _finish(folder, work))
    return read_records(folder) if read else pd.DataFrame()


def _open(folder: Path, manifest: dict[str, Any], parts: int) -> list[int]:
    """The parts that are still to be measured."""
    open_folder(folder, KIND, manifest)
    missing = missing_parts(folder, parts)
    for part in missing:
        if part_file(folder, part).is_file() and not is_whole(part_file(folder, part)):
            _say_again(part_file(folder, part))
    if not missing and records_file(folder).is_file() and not is_whole(records_file(folder)):
        _say_again(records_file(folder))
        records_file(folder).unlink()
    if missing:
        for merged in (records_file(folder), gallery_file(folder)):
            merged.unlink(missing_ok=True)
    elif not whole_gallery(folder):
        gallery_file(folder).unlink(missing_ok=True)
    return missing


def _say_again(path: Path) -> None:
    warnings.warn(f"--out: {path} was damaged and is made again", stacklevel=2)


def _finish(folder: Path, work: Work) -> None:
    if not records_file(folder).is_file():
        merge_parts(folder, work.plan.parts)
    if not gallery_file(folder).is_file():
        write_sealed_arrays(gallery_file(folder), work.finish_gallery(read_records(folder, ("sample", "distance"))))


def _samples(plan: Plan, parts: Sequence[int]) -> int:
    return sum(len(plan.part(part)) for part in parts)


def _bar(plan: Plan, parts: Sequence[int], show: bool, name: str) -> Any:
    total = _samples(plan, parts)
    return tqdm(total=total, desc=f"evaluating {name}", unit="sample", dynamic_ncols=True, disable=not (show and total))
