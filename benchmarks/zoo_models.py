"""All models of the zoo: each has ``build(hidden)``, ``example()`` and ``call``."""

from zoo_layers import LAYERS
from zoo_nets import NETS
from zoo_own import OWN
from zoo_special import SPECIAL
from zoo_temporal import TEMPORAL
from zoo_tsl import TSL

__all__ = ["MODELS"]

MODELS = [*OWN, *NETS, *LAYERS, *SPECIAL, *TEMPORAL, *TSL]
