"""Structures on the union of a graph that lasts and one that is seen once."""

__all__ = []
