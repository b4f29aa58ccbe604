"""All models of the zoo: each has ``build(hidden)``, ``example()`` and ``call``."""

from __future__ import annotations

import argparse

import torch
from zoo_examples import EXAMPLES
from zoo_graphs import Model
from zoo_layers import LAYERS
from zoo_nets import NETS
from zoo_own import OWN
from zoo_special import SPECIAL
from zoo_temporal import TEMPORAL
from zoo_tsl import TSL

__all__ = ["MODELS", "asked"]

MODELS = [*OWN, *EXAMPLES, *NETS, *LAYERS, *SPECIAL, *TEMPORAL, *TSL]


def asked(text: str | None, *more: str) -> tuple[list[Model], argparse.Namespace]:
    """Return the models that a command asks for, on one thread, and its other options.

    Args:
        text: What the command does.
        more: Options that take no value.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="models whose name contains this")
    for name in more:
        parser.add_argument(name, action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = options.only.lower()
    return [x for x in MODELS if only in f"{x.family}/{x.name}".lower()], options
