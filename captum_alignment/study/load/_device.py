"""The device that a user names."""

import torch


def as_device(name: str) -> torch.device:
    """The device ``name``; a `ValueError` where it is not available."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch raises a different type for each backend
        raise ValueError(
            f"device: got {name!r}, which is not available here; expected cpu, cuda, cuda:1, mps"
        ) from error
    return device
