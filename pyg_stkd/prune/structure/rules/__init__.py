"""The rules of the layers and models that are known, a file for each family."""

from pyg_stkd.prune.structure.rules import (
    attention,
    containers,
    convolutions,
    dense,
    edge,
    models,
    multihead,
    norms,
    recurrent,
    relational,
    spatio_temporal,
)

__all__ = [
    "attention",
    "containers",
    "convolutions",
    "dense",
    "edge",
    "models",
    "multihead",
    "norms",
    "recurrent",
    "relational",
    "spatio_temporal",
]
