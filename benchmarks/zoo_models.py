"""All models of the zoo, to import: ``MODELS``, each with ``build(hidden)``, ``example()``, ``call``."""

from zoo_layers import LAYERS
from zoo_nets import NETS
from zoo_own import OWN
from zoo_temporal import TEMPORAL

__all__ = ["MODELS"]

MODELS = [*OWN, *NETS, *LAYERS, *TEMPORAL]
