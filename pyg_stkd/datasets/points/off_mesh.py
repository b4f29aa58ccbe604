"""Reads OFF meshes through PyG's parser, with the checks and the repairs that it lacks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.io.off import parse_off

__all__ = ["read_mesh"]


def read_mesh(path: Path) -> Data:
    """A mesh with `pos` `[V, 3]` and triangles `face` `[3, T]`.

    Beyond `torch_geometric.io.read_off`: the counts may follow `OFF` on its line or after blank
    lines, comments and colours are left out, the last line needs no line end (PyG would lose it),
    and a face of more than four corners becomes a fan of triangles (PyG would drop it).

    Raises:
        ValueError: If the file is no OFF file, is not as long as its header says, names a vertex
            that it lacks, or has vertices that are not three finite numbers.
    """
    try:
        raw = path.read_text(encoding="ascii").splitlines()
        lines = [line for line in (row.partition("#")[0].strip() for row in raw) if line]
        if not lines or not lines[0].startswith("OFF"):
            raise ValueError(f"a first line of {lines[0][:20]!r}" if lines else "an empty file")
        if lines[0] == "OFF":
            lines = lines[1:]
        else:
            lines[0] = lines[0][3:]  # `OFF` and the counts on one line
        num_nodes, num_faces = (int(item) for item in lines[0].split()[:2]) if lines else (0, 0)
        if num_nodes < 3 or num_faces < 1 or len(lines) != 1 + num_nodes + num_faces:
            raise ValueError(
                f"{num_nodes} vertices and {num_faces} faces announced, {len(lines) - 1} lines"
            )
        faces = _triangles(lines[1 + num_nodes :])
        head = f"{num_nodes} {len(faces)} 0"
        data = parse_off(["OFF", head, *lines[1 : 1 + num_nodes], *faces])
        _check(data, num_nodes)
    except ValueError as error:
        raise ValueError(f"'{path}' must be a complete OFF mesh (got {error})") from error
    return data


def _triangles(lines: list[str]) -> list[str]:
    faces = []
    for line in lines:
        count, *corners = line.split()
        size = int(count)
        if size < 3 or len(corners) < size:
            raise ValueError(f"a face {line!r}")
        first, *rest = corners[:size]  # what follows is a colour
        faces += [f"3 {first} {a} {b}" for a, b in pairwise(rest)]
    return faces


def _check(data: Data, num_nodes: int) -> None:
    pos, face = data.pos, data.face
    if pos.shape != (num_nodes, 3) or not pos.isfinite().all():
        raise ValueError("vertices that are not three finite numbers")
    if int(face.min()) < 0 or int(face.max()) >= num_nodes:
        raise ValueError(f"faces with vertices {int(face.min())} to {int(face.max())}")
    a, b, c = (pos / pos.abs().max())[face]  # in float32, as PyG samples points
    if not (torch.linalg.cross(b - a, c - a).norm(dim=1) > 0).any():
        raise ValueError("a surface without area, in units of its largest coordinate")
