"""Target maps for Interpretation Regularization: computed once, kept on disk, read beside their images."""

import hashlib
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from captum_alignment._core._foolbox import Bounds
from captum_alignment._core._inputs import ForwardFunc, as_tensors, check_count, check_finite
from captum_alignment._core._random import as_generator, seeded
from captum_alignment.training._forward import evaluating
from captum_alignment.training._map_store import MapStore, MapWriter
from captum_alignment.training._regularizers import check_factor

#: Signed maps of images (N, ...) and their labels (N,).
MapFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def saliency_targets(
    model: ForwardFunc,
    dataset: Dataset[Any],
    folder: Path | str,
    *,
    method: Literal["smoothgrad", "gradient"] | MapFunction = "smoothgrad",
    samples: int = 50,
    sigma: float = 0.15,
    bounds: Bounds = (0, 1),
    threshold: float | None = 1.0,
    transform: Callable[..., Any] | None = None,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    show_progress: bool = False,
) -> "SaliencyTargets":
    """Signed saliency maps of every image of ``dataset``, kept in ``folder``; a second call finds them there.

    An interrupted call is continued by the same call; the result is the same as without the interruption. The model is
    run in eval mode, on the device of its parameters, and leaves as it came.

    Args:
        model: callable returning (N, K) logits, or (N,) / (N, 1): the logit of class 1.
        dataset: yields ``(image, label)``, float tensors within ``bounds`` and integers, without random augmentation:
            that is what ``transform`` is for.
        folder: new, empty, or with the maps that the same options have begun or finished.
        method: "gradient" is ∇ₓ of the true class's score, Captum's ``Saliency(abs=False)``; "smoothgrad" its mean over
            the image and ``samples`` noisy copies, clamped to the bounds, by Captum's ``NoiseTunnel``; or a function of
            images and labels that returns maps shaped like the images, e.g. another attribution of Captum's.
        samples: noisy copies.
        sigma: standard deviation of the noise, in units of the input.
        bounds: the least and greatest values of an image.
        threshold, transform: as of `SaliencyTargets`. The maps are kept whole, so both can change between calls.
        batch_size: images at a time.
        generator: where the noise comes from; None is a fixed seed. It is asked for one number per call.
        show_progress: show a progress bar.

    Returns:
        A dataset of ``(image, label, map)``.

    Raises:
        TypeError: images of a wrong kind.
        ValueError: an empty dataset, numbers out of range, NaN maps, or a folder with maps of another model or of other
            options.

    Noack, Ahern, Dou & Li (2019); SmoothGrad: Smilkov et al. (2017).

    >>> import tempfile
    >>> data = torch.utils.data.TensorDataset(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image, label, map = saliency_targets(net, data, folder, samples=2)[0]
    >>> map.shape
    torch.Size([1, 4, 4])
    """
    count = len(cast(Sized, dataset))
    if count == 0:
        raise ValueError("dataset: got no samples, expected at least one")
    for name, value in {"samples": samples, "batch_size": batch_size}.items():
        check_count(name, value)
    seed = int(torch.randint(2**31, (), generator=as_generator(generator)))
    options: dict[str, Any] = {
        "samples_in_all": count,
        "model": _fingerprint(model),
        "method": method if isinstance(method, str) else getattr(method, "__qualname__", type(method).__name__),
    }
    if method == "smoothgrad":
        noise = {"samples": samples, "sigma": check_factor(sigma, "sigma"), "bounds": list(map(float, bounds))}
        options |= noise | {"seed": seed}
    function = method if callable(method) else _map_function(model, method, samples, sigma, bounds)
    writer = MapWriter(folder, options)
    rest = Subset(dataset, range(writer.done, count))
    # A loader without a generator of its own draws from the global one.
    batches = DataLoader(rest, batch_size=batch_size, generator=torch.Generator()) if len(rest) else ()
    with evaluating(model), tqdm(total=count, initial=writer.done, desc="maps", disable=not show_progress) as bar:
        for images, labels in batches:
            # Seeded by position, so that an interruption changes nothing.
            maps = _compute(function, _to_model(images, model), torch.as_tensor(labels), seed + writer.done)
            writer.append(maps.cpu().numpy())
            bar.update(len(maps))
    return SaliencyTargets(dataset, folder, threshold=threshold, transform=transform)


class SaliencyTargets(Dataset[tuple[Tensor, Any, Tensor]]):
    """A dataset of ``(image, label, map)`` from a dataset of ``(image, label)`` and the maps kept in ``folder``.

    Args:
        dataset: the one that the maps were made from.
        folder: where `saliency_targets` has put them; they are read through a memory map.
        threshold: t; entries of a map within t standard deviations of its mean become 0, see `threshold_maps`. None
            keeps all.
        permuted: as a control, the fraction of each map's entries that trade places, see `permute_maps`.
        transform: augments image and map jointly, ``image, map = transform(image, map)``. Transforms of
            ``torchvision.transforms.v2`` see an ``Image`` and a ``Mask``: crops, flips and rotations apply to both,
            changes of colour to the image alone.

    Raises:
        FileNotFoundError: no finished maps.
        ValueError: a dataset of another length.

    >>> import tempfile
    >>> data = torch.utils.data.TensorDataset(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = saliency_targets(net, data, folder, samples=2)
    ...     image, label, map = SaliencyTargets(data, folder, threshold=None)[0]
    >>> map.shape
    torch.Size([1, 4, 4])
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        folder: Path | str,
        *,
        threshold: float | None = 1.0,
        permuted: float = 0.0,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        self.dataset, self.transform = dataset, transform
        self.threshold = None if threshold is None else check_factor(threshold, "threshold")
        self.permuted = check_factor(permuted, "permuted")
        self._maps = MapStore(folder)
        if len(self._maps) != len(cast(Sized, dataset)):
            raise ValueError(
                f"dataset: got {len(cast(Sized, dataset))} samples, but {folder} holds maps of {len(self._maps)}"
            )

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index: int) -> tuple[Tensor, Any, Tensor]:
        image, label = self.dataset[index]
        target = torch.from_numpy(self._maps[index])
        if self.threshold is not None:
            target = threshold_maps(target.unsqueeze(0), self.threshold).squeeze(0)
        if self.permuted > 0:
            generator = torch.Generator().manual_seed(index % len(self))
            target = permute_maps(target.unsqueeze(0), self.permuted, generator=generator).squeeze(0)
        if self.transform is not None:
            from torchvision.tv_tensors import Image, Mask  # noqa: PLC0415 - torchvision is slow to import

            image, target = (x.as_subclass(Tensor) for x in self.transform(Image(image), Mask(target)))
        return image, label, target


def threshold_maps(maps: Tensor, threshold: float) -> Tensor:
    """``maps`` (N, ...) with 0 in place of each entry that lies within ``threshold`` standard deviations of its map's
    mean. Noack et al. (2019): 1, or 1.25 for SmoothGrad of a standard MNIST net.

    >>> threshold_maps(torch.tensor([[0.0, 0, 0, 9]]), 1)
    tensor([[0., 0., 0., 9.]])
    """
    flat = maps.flatten(1)
    mean, deviation = flat.mean(1, keepdim=True), flat.std(1, correction=0, keepdim=True)
    return torch.where((flat - mean).abs() > threshold * deviation, flat, 0).reshape(maps.shape)


def permute_maps(maps: Tensor, fraction: float, *, generator: torch.Generator | None = None) -> Tensor:
    """``maps`` (N, ...) with a random ``fraction`` of each map's entries permuted among themselves: a control whose
    targets have the same values and no meaning. ``generator=None`` is a fixed seed.

    >>> permute_maps(torch.arange(4.0).view(1, 4), 1.0).sort().values
    tensor([[0., 1., 2., 3.]])
    """
    if check_factor(fraction, "fraction") > 1:
        raise ValueError(f"fraction: got {fraction!r}, expected at most 1")
    generator = as_generator(generator)
    flat = maps.flatten(1).clone()
    for row in flat:
        chosen = _permutation(len(row), generator)[: round(fraction * len(row))]
        row[chosen.to(row.device)] = row[chosen[_permutation(len(chosen), generator)].to(row.device)]
    return flat.reshape(maps.shape)


def _permutation(n: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator, device=generator.device)


def _map_function(model: ForwardFunc, method: str, samples: int, sigma: float, bounds: Bounds) -> MapFunction:
    if method not in ("smoothgrad", "gradient"):
        raise ValueError(f"method: got {method!r}, expected 'smoothgrad', 'gradient' or a function")

    def clamped(x: Tensor) -> Any:
        # The noisy image is clamped; the gradient is that at the clamped image, also where the clamp was active.
        return model(x + (x.clamp(*bounds) - x).detach())

    clean, noisy = Saliency(model), NoiseTunnel(Saliency(clamped))

    def maps(images: Tensor, labels: Tensor) -> Tensor:
        found = clean.attribute(images, target=labels, abs=False)
        if method == "gradient":
            return found
        mean = noisy.attribute(
            images, target=labels, abs=False, nt_samples=samples, nt_samples_batch_size=1, stdevs=float(sigma)
        )
        return (samples * cast(Tensor, mean) + found) / (samples + 1)

    return maps


def _compute(function: MapFunction, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    (images,) = as_tensors(images, "dataset images")
    with seeded(seed, images.device), torch.inference_mode(False), torch.enable_grad():
        maps = function(images.requires_grad_(), labels.to(images.device)).detach()
    if maps.shape != images.shape:
        raise ValueError(f"method: returned maps of shape {tuple(maps.shape)}, expected {tuple(images.shape)}")
    check_finite((maps,), "maps")
    return maps


def _to_model(images: Tensor, model: Any) -> Tensor:
    """A copy of the images where the model is."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return images.clone() if first is None else images.to(first.device, copy=True)


def _fingerprint(model: Any) -> str | None:
    """A digest of the parameters and buffers of a module; None for another callable."""
    if not isinstance(model, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
