"""Files and processes: whatever is written is whole or absent, and every folder says what it holds.

`whole_file` writes anything under a temporary name and renames it; `open_folder` refuses a folder of something else and
lets the same call continue; `processes` shares work among the processes that torchrun started.
"""

from captum_alignment.study.store._files import (
    read_arrays,
    read_weights,
    state_hash,
    versions,
    whole_file,
    write_json,
    write_text,
    write_weights,
)
from captum_alignment.study.store._folder import open_folder, read_manifest
from captum_alignment.study.store._processes import Processes, local_rank, processes

__all__ = [
    "Processes",
    "local_rank",
    "open_folder",
    "processes",
    "read_arrays",
    "read_manifest",
    "read_weights",
    "state_hash",
    "versions",
    "whole_file",
    "write_json",
    "write_text",
    "write_weights",
]
