from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch_geometric.io import read_off

from pyg_stkd.datasets.points.off_mesh import read_mesh

POS = ["0 0 0", "1 0 0", "1 1 0", "0 1 0", "-1 0.5 0"]


def mesh(
    faces: list[str], head: str | None = None, end: str = "\n", vertices: list[str] = POS
) -> str:
    head = head or f"OFF\n{len(vertices)} {len(faces)} 0"
    return "\n".join([head, *vertices, *faces]) + end


def read(tmp_path: Path, text: str) -> tuple[list[list[float]], list[list[int]]]:
    path = tmp_path / "a.off"
    path.write_text(text)
    data = read_mesh(path)
    return data.pos.tolist(), data.face.t().tolist()


@pytest.mark.parametrize(
    "head",
    ["OFF\n5 2 0", "OFF5 2 0", "OFF 5 2 0", "OFF\r\n5 2 0", "OFF \n\n# by hand\n5 2", "OFF\n5 2 7"],
)
@pytest.mark.parametrize("end", ["\n", "", "\n\n", "  # the last"])
def test_mesh_headers(tmp_path: Path, head: str, end: str) -> None:
    pos, face = read(tmp_path, mesh(["3 0 1 2", "3 0 2 3"], head, end))
    assert pos == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [-1, 0.5, 0]]
    assert face == [[0, 1, 2], [0, 2, 3]]


def test_mesh_polygons_become_fans(tmp_path: Path) -> None:
    _, face = read(tmp_path, mesh(["5 0 1 2 3 4"]))  # PyG drops it
    assert face == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]
    _, face = read(tmp_path, mesh(["4 0 1 2 3", "3 0 3 4"]))
    assert face == [[0, 1, 2], [0, 2, 3], [0, 3, 4]]


def test_mesh_colours_are_left_out(tmp_path: Path) -> None:
    _, face = read(tmp_path, mesh(["3 0 1 2 255 0 0", "3  0\t2 3  0.5 0.5 0.5 1"]))
    assert face == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty file"),
        ("ply\n5 1 0\n", "a first line of 'ply'"),
        ("OFF\n", "0 vertices and 0 faces announced"),
        ("OFF\n5 one 0\n", "invalid literal"),
        ("OFF\n5\n", "not enough values"),
        ("OFF\n0 0 0\n", "0 vertices and 0 faces announced, 0 lines"),
        (mesh([]), "5 vertices and 0 faces"),
        (mesh(["3 0 1 2"], "OFF\n5 2 0"), "5 vertices and 2 faces announced, 6 lines"),
        (mesh(["3 0 1 2", "3 0 1 2"], "OFF\n5 1 0"), "5 vertices and 1 faces announced, 7 lines"),
        (mesh(["3 0 1"]), "a face '3 0 1'"),
        (mesh(["2 0 1"]), "a face '2 0 1'"),
        (mesh(["3 0 1 5"]), "faces with vertices 0 to 5"),
        (mesh(["3 0 1 -1"]), "faces with vertices -1 to 1"),
        (mesh(["3 0 1 1"]), "a surface without area"),
        (mesh(["3 0 1 2"], vertices=["0 0 0"] * 5), "a surface without area"),
        (
            mesh(["3 0 1 2"], vertices=[*POS[:4], "1e30 0 0"]),
            "without area, in units of its largest",
        ),
        (mesh(["3 0 1 2"], vertices=["0 0 nan", *POS[1:]]), "not three finite numbers"),
        (mesh(["3 0 1 2"], vertices=["0 0 0 0"] * 5), "not three finite numbers"),
        (mesh(["3 0 1 2"], vertices=["0 0", *POS[1:]]), "expected sequence"),
        (mesh(["3 0 1 x"]), "invalid literal"),
    ],
)
def test_mesh_refuses(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"a.off' must be a complete OFF mesh \(got .*{reason}"):
        read(tmp_path, text)


def test_mesh_refuses_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_bytes(b"OFF\n\xff\x00")
    with pytest.raises(ValueError, match="must be a complete OFF mesh"):
        read_mesh(tmp_path / "a.off")


@pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)
def test_mesh_real_files_as_pyg_reads_them() -> None:
    root = Path(os.environ["PYG_STKD_DATA"]) / "modelnet10_off_subset" / "raw"
    paths = sorted(root.rglob("*.off"))
    assert len(paths) == 20
    for path in paths:
        ours, theirs = read_mesh(path), read_off(str(path))
        assert torch.equal(ours.pos, theirs.pos)
        assert torch.equal(ours.face, theirs.face)
