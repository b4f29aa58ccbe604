"""Forecasting and imputing models of tsl (torch-spatiotemporal), where that is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from zoo_graphs import NODES, Model, graph

__all__ = ["TSL"]

STEPS, INPUTS, HORIZON = 12, 2, 3


def _steps(seed: int = 0, inputs: int = INPUTS) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, STEPS, NODES, inputs, generator=generator)


def _x() -> Any:
    return (_steps(),)


def _xe() -> Any:
    g = graph()
    return _steps(), g.edge_index, g.edge_weight


def _masked() -> Any:
    return _steps(), _steps(1) > 0


def _filled() -> dict[str, Any]:
    g = graph()
    edges = {"edge_index": g.edge_index, "edge_weight": g.edge_weight}
    return {"x": _steps(), **edges, "mask": _steps(1) > 0}


def _spin() -> Any:
    return _steps(), _steps(2), _steps(1) > 0, graph().edge_index


# Sizes that all forecasters take.
_SIZES = {"input_size": INPUTS, "output_size": 1, "horizon": HORIZON}


def _models() -> list[Model]:
    try:
        nets = importlib.import_module("tsl.nn.models")
    except Exception:  # not installed, or not with this torch
        return []

    def model(name: str, example: Callable[[], Any], build: Callable[[int], Any]) -> Model:
        def built(hidden: int) -> nn.Module:
            return getattr(nets, name)(**build(hidden))

        return Model(name, "tsl", built, example)

    def sized(**more: Any) -> dict[str, Any]:
        return _SIZES | more

    nodes = {"n_nodes": NODES}
    stcn = {"exog_size": 0, "n_layers": 2, "temporal_kernel_size": 2, "spatial_kernel_size": 2}
    gru_gcn = {"exog_size": 0, "enc_layers": 1, "gcn_layers": 2}
    enc_dec = {"rnn_layers": 1, "gcn_layers": 2, "rnn_dropout": 0.1, "gcn_dropout": 0.1}
    evolve = {"n_layers": 2, "norm": "mean", "root_weight": True, "cached": False}
    return [
        model("DCRNNModel", _xe, lambda h: sized(hidden_size=h, ff_size=2 * h)),
        model(
            "GraphWaveNetModel",
            _xe,
            lambda h: sized(hidden_size=h, ff_size=2 * h, n_layers=3, **nodes),
        ),
        model("GRUGCNModel", _xe, lambda h: sized(hidden_size=h, **gru_gcn)),
        model("STCNModel", _xe, lambda h: sized(hidden_size=h, ff_size=2 * h, **stcn)),
        model("RNNModel", _x, lambda h: sized(hidden_size=h, ff_size=2 * h)),
        model("FCRNNModel", _x, lambda h: sized(hidden_size=h, ff_size=2 * h, **nodes)),
        model("TCNModel", _x, lambda h: sized(hidden_size=h, ff_size=2 * h, n_layers=2)),
        model("TransformerModel", _x, lambda h: sized(hidden_size=h, ff_size=2 * h, n_heads=2)),
        model("AGCRNModel", _x, lambda h: sized(hidden_size=h, emb_size=4, **nodes)),
        model(
            "GatedGraphNetworkModel",
            lambda: (_steps(), graph().edge_index),
            lambda h: sized(hidden_size=h, input_window_size=STEPS, **nodes),
        ),
        model("RNNEncGCNDecModel", _xe, lambda h: sized(hidden_size=h, exog_size=0, **enc_dec)),
        model("EvolveGCNModel", _xe, lambda h: sized(hidden_size=h, exog_size=0, **evolve)),
        model("STIDModel", _x, lambda h: sized(hidden_size=h, window=STEPS, **nodes)),
        model("RNNImputerModel", _masked, lambda h: {"input_size": INPUTS, "hidden_size": h}),
        model("BiRNNImputerModel", _masked, lambda h: {"input_size": INPUTS, "hidden_size": h}),
        model(
            "GRINModel",
            _filled,
            lambda h: {"input_size": INPUTS, "hidden_size": h, "ff_size": 2 * h, **nodes},
        ),
        model(
            "SPINModel",
            _spin,
            lambda h: (
                {"input_size": INPUTS, "hidden_size": h, "n_layers": 2, "exog_size": 2} | nodes
            ),
        ),
        model("ARModel", _x, lambda h: sized(temporal_order=STEPS)),
        model("VARModel", _x, lambda h: sized(temporal_order=STEPS, **nodes)),
    ]


TSL = _models()
