from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyg_stkd.distill import Capture, TeacherCaptures
from pyg_stkd.distill.recording.capture_file import load_captures, save_captures
from pyg_stkd.distill.recording.reading.choices import Choice
from pyg_stkd.graph import Graph

pytest.importorskip("safetensors")

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def frozen(output: object, **kwargs: object) -> TeacherCaptures:
    capture = Capture(output, {"edge_index": EDGES}, layer="conv", owner="teacher", **kwargs)
    return TeacherCaptures({"conv": (capture.freeze(),)})


def test_everything_comes_back(tmp_path: Path) -> None:
    choices = (Choice(5, torch.tensor([4, 2, 0])), Choice(3, None))
    output = {("a", "to", "b"): X, "pair": (X.half(), [X.double()])}
    captures = frozen(output, choices=choices, call=2)
    save_captures(captures, tmp_path / "a.safetensors", {"key": "7"}, None)
    found, texts = load_captures(tmp_path / "a.safetensors")
    assert texts["key"] == "7"
    (before,), (after,) = captures["conv"], found["conv"]
    assert list(after.output) == list(before.output)
    assert torch.equal(after.output[("a", "to", "b")], X)
    assert after.output["pair"][0].dtype == torch.float16
    assert torch.equal(after.output["pair"][1][0], X.double())
    assert torch.equal(after.edge_index, EDGES)
    assert (after.layer, after.owner, after.call) == ("conv", "teacher", 2)
    assert after.frozen
    assert after.choices[0].sources == 5
    assert after.choices[0].nodes.tolist() == [4, 2, 0]
    assert after.choices[1] == Choice(3, None)


def test_half_precision_comes_back_in_the_type_it_had(tmp_path: Path) -> None:
    save_captures(frozen(X), tmp_path / "full", {}, None)
    save_captures(frozen(X), tmp_path / "half", {}, torch.float16)
    (after,) = load_captures(tmp_path / "half")[0]["conv"]
    assert after.value.dtype == X.dtype
    torch.testing.assert_close(after.value, X.half().float(), rtol=0, atol=0)
    assert after.edge_index.dtype == torch.int64
    sizes = [(tmp_path / name).stat().st_size for name in ("half", "full")]
    assert sizes[1] - sizes[0] == X.numel() * 2


def test_a_graph_comes_back_sorted(tmp_path: Path) -> None:
    graph = Graph(EDGES.flip(1), 3)
    capture = Capture(X, {"edge_index": graph}, layer="conv", owner="teacher")
    save_captures(TeacherCaptures({"conv": (capture.freeze(),)}), tmp_path / "a", {}, None)
    (after,) = load_captures(tmp_path / "a")[0]["conv"]
    assert torch.equal(after.graph.edge_index, graph.edge_index)
    assert after.graph.num_nodes == 3


def test_refuses_what_is_no_tensor(tmp_path: Path) -> None:
    class Odd:
        pass

    captures = frozen((X, Odd()))
    with pytest.raises(ValueError, match=r"teacher layer 'conv' must be tensors.*got Odd"):
        save_captures(captures, tmp_path / "a", {}, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_refuses_other_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    save_captures(frozen(X), path, {}, None)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "text":
        path.write_bytes(b"hello")
    else:
        from safetensors.torch import save_file

        save_file({"x": X}, path)
    with pytest.raises(ValueError, match=r"a\.safetensors must be a file of a teacher's captures"):
        load_captures(path)


def test_refuses_other_texts_and_edges(tmp_path: Path) -> None:
    """Which layer it is, what tensors were, edges: a bit of each would be another teacher."""
    path = tmp_path / "a.safetensors"
    save_captures(frozen(X), path, {"key": "1"}, None)
    whole = path.read_bytes()
    for before, after in (
        (b"conv", b"cone"),
        (b"float32", b"floau32"),
        (b"tensor", b"ten3or"),
        (EDGES.numpy().tobytes(), EDGES.flip(1).numpy().tobytes()[:-1] + b"\1"),
    ):
        assert before in whole
        path.write_bytes(whole.replace(before, after))
        with pytest.raises(ValueError, match=r"(?s)a teacher's captures .*other (texts|numbers)"):
            load_captures(path)
    path.write_bytes(whole)
    assert load_captures(path)[1]["key"] == "1"


def test_reads_what_was_written_before_there_were_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyg_stkd.distill.recording import capture_file as module

    path = tmp_path / "a.safetensors"
    library, _ = module.safetensors("test")
    write = library.save

    def save(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
        tree = re.sub(r', "sum": \d+', "", metadata["tree"])
        assert tree != metadata["tree"]
        return write(tensors, {"key": metadata["key"], "tree": tree})

    with monkeypatch.context() as patch:
        patch.setattr(library, "save", save)
        save_captures(frozen(X), path, {"key": "1"}, None)
    found, about = load_captures(path)
    assert about["key"] == "1"
    assert torch.equal(found["conv"][0].edge_index, EDGES)
    # Other fields than such files have are refused by what they are.
    path.write_bytes(path.read_bytes().replace(b"float32", b"floau32"))
    with pytest.raises(ValueError, match=r"a teacher's captures .*floau32"):
        load_captures(path)


def test_refuses_numbers_for_which_a_type_has_no_room(tmp_path: Path) -> None:
    big = torch.tensor([[1.0, -7e4], [float("inf"), 2.0]])
    with pytest.raises(
        ValueError,
        match=r"'dtype' must have room for the captures of the teacher layer 'conv' "
        r"\(got torch.float16, and numbers up to 70000\)",
    ):
        save_captures(frozen(big), tmp_path / "a", {}, torch.float16)
    assert not list(tmp_path.iterdir())
    save_captures(frozen(big), tmp_path / "a", {}, torch.bfloat16)
    save_captures(
        frozen(big.clamp(min=-6e4)), tmp_path / "b", {}, torch.float16
    )  # what is infinite is
