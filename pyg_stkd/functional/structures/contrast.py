r"""The contrast of each node's features with those of all other nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd import checks
from pyg_stkd.functional.structures.divergences.divergence import check_finite
from pyg_stkd.functional.structures.global_structure import check_rows, paired_rows
from pyg_stkd.functional.structures.similarities.prepared import unit

__all__ = ["contrast"]


def contrast(
    z_student: Tensor,
    z_teacher: Tensor,
    temperature: float = 0.075,
    *,
    max_samples: int | None = 8192,
) -> Tensor:
    r"""Graph contrastive representation distillation (G-CRD) from `"On Representation Knowledge
    Distillation for Graph Neural Networks" <https://arxiv.org/abs/2111.04964>`_: each node of the
    student is to find itself among the nodes of the teacher (InfoNCE).

    .. math::
        \mathcal{L} = - \frac{1}{N} \sum_i \log \frac
        {\exp(\cos(\mathbf{s}_i, \mathbf{t}_i) / \tau)}
        {\sum_j \exp(\cos(\mathbf{s}_i, \mathbf{t}_j) / \tau)}

    Args:
        z_student (Tensor): The student's features.
        z_teacher (Tensor): The teacher's features, of the same width: project first.
        temperature (float): The temperature :math:`\tau > 0`. (default: :obj:`0.075`)
        max_samples (int, optional): Of more nodes than this, so many are drawn at random;
            :obj:`None` takes all. (default: :obj:`8192`)

    Shapes:
        - **z_student**, **z_teacher:** :math:`(N, F)`
        - **output:** a scalar, 0 without nodes

    Raises:
        TypeError: If features are not of floating point numbers.
        ValueError: If shapes differ, an option is not in its range, or features are not finite.

    Example:
        >>> z = torch.eye(2)
        >>> round(contrast(z, z, temperature=1.0).item(), 4)  # log(1 + exp(-1))
        0.3133
    """
    checks.number("temperature", temperature, above=0)
    check_rows(z_student, z_teacher, max_samples)
    if z_student.size(-1) != z_teacher.size(-1):
        raise ValueError(
            "'z_student' and 'z_teacher' must have the same width "
            f"(got shapes {list(z_student.shape)} and {list(z_teacher.shape)})"
        )
    s, t = paired_rows(z_student, z_teacher, max_samples)
    if s.size(0) == 0:
        return s.sum() + t.sum()
    s, t = unit(s), unit(t)
    own = torch.arange(s.size(0), device=s.device)
    with torch.autocast(s.device.type, enabled=False):
        cosine = s @ t.t()
    loss = F.cross_entropy(cosine / float(temperature), own)
    check_finite(loss, "contrasted", z_student=z_student, z_teacher=z_teacher)
    return loss
