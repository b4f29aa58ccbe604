"""Masks of torch.nn.utils.prune on channels and weights."""

__all__ = []
