from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.nn.models.astgcn_states import read_public

N, T, C, F, K = 5, 12, 2, 4, 3


def authors(block: str = "BlockList.0.", final: str = "final_conv.") -> dict[str, Tensor]:
    """The weights of one block, as the authors' code names them."""
    state = {
        "TAt.U1": torch.randn(N), "TAt.U2": torch.randn(C, N), "TAt.U3": torch.randn(C),
        "TAt.be": torch.randn(1, T, T), "TAt.Ve": torch.randn(T, T),
        "SAt.W1": torch.randn(T), "SAt.W2": torch.randn(C, T), "SAt.W3": torch.randn(C),
        "SAt.bs": torch.randn(1, N, N), "SAt.Vs": torch.randn(N, N),
        **{f"cheb_conv_SAt.Theta.{k}": torch.randn(C, F) for k in range(K)},
        "time_conv.weight": torch.randn(F, F, 1, 3), "time_conv.bias": torch.randn(F),
        "residual_conv.weight": torch.randn(F, C, 1, 1), "residual_conv.bias": torch.randn(F),
        "ln.weight": torch.randn(F), "ln.bias": torch.randn(F),
    }  # fmt: skip
    state = {block + key: value for key, value in state.items()}
    return {**state, final + "weight": torch.randn(6, T, 1, F), final + "bias": torch.randn(6)}


def test_reads_widths_and_weights() -> None:
    state = authors()
    options, own = read_public(state)
    assert options == {
        "in_channels": C, "hidden_channels": F, "out_channels": 6, "num_nodes": N,
        "num_steps": T, "num_blocks": 1, "K": K, "time_stride": 1,
        "recursion": "elementwise", "bias": False,
    }  # fmt: skip
    first = "parts.recent.blocks.0."
    for k in range(K):
        assert own[first + "conv.weight"][k] is not None
        assert own[first + "conv.weight"][k].equal(state[f"BlockList.0.cheb_conv_SAt.Theta.{k}"])
    time_conv = state["BlockList.0.time_conv.weight"]
    assert own[first + "time_conv.weight"].equal(time_conv.transpose(2, 3))
    assert own[first + "temporal_attention.bias"].equal(state["BlockList.0.TAt.be"][0])
    assert own[first + "spatial_attention.w2"].equal(state["BlockList.0.SAt.W2"])
    assert own["parts.recent.final.bias"] is state["final_conv.bias"]


def test_more_than_ten_orders_and_blocks_keep_their_order() -> None:
    state = authors()
    for k in range(K, 12):
        state[f"BlockList.0.cheb_conv_SAt.Theta.{k}"] = torch.full((C, F), float(k))
    for i in range(1, 11):
        state |= {k: v for k, v in authors(f"BlockList.{i}.").items() if "final" not in k}
    options, own = read_public(state)
    assert (options["K"], options["num_blocks"]) == (12, 11)
    weight = own["parts.recent.blocks.0.conv.weight"]
    assert weight[K:, 0, 0].tolist() == [float(k) for k in range(K, 12)]


def test_wrong_states() -> None:
    state = authors()
    with pytest.raises(ValueError, match=r"authors' 'ASTGCN_submodule' or .*tensor 'lin.weight'"):
        read_public({**state, "lin.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"must hold all weights of the model \(got no"):
        read_public({k: v for k, v in state.items() if "SAt.Vs" not in k})
    wide = {**state, "final_conv.weight": torch.randn(6, T, 1, F + 1)}
    with pytest.raises(ValueError, match=r"as many Chebyshev as time filters \(got 4 and 5"):
        read_public(wide)
