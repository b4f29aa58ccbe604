"""One call of a function that a model makes: what of its inputs and outputs belongs together."""

__all__ = []
