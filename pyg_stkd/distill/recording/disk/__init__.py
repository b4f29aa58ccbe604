"""What is made of a capture, in files beside it."""

__all__ = []
