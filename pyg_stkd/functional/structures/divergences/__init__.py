"""How far a student's structures are from a teacher's, with their slopes at once."""

__all__ = []
