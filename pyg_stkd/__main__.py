"""What a report of a bug needs: ``python -m pyg_stkd`` prints versions, packages and devices."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata

import torch
import torch_geometric.typing

import pyg_stkd

__all__ = ["describe"]

REQUIRED = ("torch", "torch-geometric", "numpy")
OPTIONAL = (
    "torch-scatter", "torch-sparse", "pyg-lib", "torch-cluster", "scipy", "networkx", "h5py",
    "safetensors", "matplotlib", "torchmetrics", "lightning", "onnx", "onnxruntime", "onnxscript",
    "fastapi",
)  # fmt: skip
MISSING = "not installed"


def describe() -> dict[str, str]:
    r"""Return versions, optional packages, fast paths and devices, by name.

    Example:
        >>> describe()["pyg-stkd"] == pyg_stkd.__version__
        True
    """
    found = {"pyg-stkd": pyg_stkd.__version__, "Python": platform.python_version()}
    found["platform"] = platform.platform()
    found |= {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    # PyG leaves out what is installed and cannot be loaded, and says so in a warning.
    for name, usable in (
        ("torch-scatter", torch_geometric.typing.WITH_TORCH_SCATTER),
        ("torch-sparse", torch_geometric.typing.WITH_TORCH_SPARSE),
        ("pyg-lib", torch_geometric.typing.WITH_PYG_LIB),
    ):
        if not usable and found[name] != MISSING:
            found[name] += " (PyG cannot load it)"
    found["segment sums on a GPU"] = (
        "torch-scatter" if torch_geometric.typing.WITH_TORCH_SCATTER else "torch"
    )
    found["neighbours of a node sampled by"] = (
        "pyg-lib"
        if torch_geometric.typing.WITH_PYG_LIB
        else "torch-sparse"
        if torch_geometric.typing.WITH_TORCH_SPARSE
        else "nothing: NeighborLoader needs pyg-lib or torch-sparse"
    )
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "cl")), "none")
    found["C++ compiler, for torch.compile"] = compiler
    found["CPU"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    found["CPU"] += f", {torch.backends.cpu.get_cpu_capability()}"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["GPU"] = ", ".join(gpus) or "none"
    found["CUDA of torch"] = torch.version.cuda or "none"
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


def main() -> None:
    """Print the description, a line for each name."""
    found = describe()
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {value}")  # noqa: T201


if __name__ == "__main__":
    main()
