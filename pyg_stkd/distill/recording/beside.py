"""Tensors that are made of a capture, kept in files beside its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pyg_stkd.files import safetensors, write_atomic

__all__ = ["Beside"]

_FORMAT = "pyg_stkd.structure.1"


@dataclass(frozen=True)
class Beside:
    """A folder for tensors that are made of one capture of a file, and a name for that capture."""

    folder: Path
    name: str

    def read(self, what: str) -> Tensor | None:
        """Return a tensor, mapped into memory, if it is there.

        Raises:
            ValueError: If its file is damaged.
        """
        path, _ = self._place(what)
        if not path.exists():
            return None
        _, broken = safetensors("TeacherCache(path=...)")
        from safetensors import safe_open

        try:
            with safe_open(path, framework="pt") as file:
                found: Tensor = file.get_tensor("structure")
        except broken as error:
            raise ValueError(f"{path} must be a file of a structure (got {error})") from error
        return found

    def write(self, what: str, value: Tensor) -> None:
        """Keep a tensor."""
        library, _ = safetensors("TeacherCache(path=...)")
        path, text = self._place(what)
        kept = {"structure": value.detach().cpu().contiguous()}
        write_atomic(path, library.save(kept, metadata={"format": _FORMAT, "of": text}))

    def _place(self, what: str) -> tuple[Path, str]:
        text = f"{_FORMAT} {self.name} {what}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return self.folder / f"{digest}.safetensors", text
