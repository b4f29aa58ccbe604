"""What is read off the arguments and outputs of a call."""

__all__ = []
