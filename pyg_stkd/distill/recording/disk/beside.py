"""Tensors that are made of a capture, kept in files beside its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from pyg_stkd.distill.recording.disk.checksum import check_sums, sums
from pyg_stkd.files import safetensors, write_atomic

__all__ = ["Beside"]

_FORMAT = "pyg_stkd.structure.1"


@dataclass(frozen=True)
class Beside:
    """A folder for tensors that are made of one capture of a file, and a name for that capture.

    Args:
        folder (Path): The folder.
        name (str): The name.
        checked (set): The files whose sums were compared before, which need not be again.
            (default: none)
    """

    folder: Path
    name: str
    checked: set[Path] = field(default_factory=set, compare=False, repr=False)

    def read(self, what: str) -> Tensor | None:
        """Return a tensor, mapped into memory, if it is there.

        Raises:
            ValueError: If its file is damaged.
        """
        found = self.read_all(what)
        return None if found is None else found["structure"]

    def write(self, what: str, value: Tensor) -> None:
        """Keep a tensor."""
        self.write_all(what, {"structure": value})

    def read_all(self, what: str) -> dict[str, Tensor] | None:
        """Return tensors by name, mapped into memory, if they are there.

        Raises:
            ValueError: If their file is damaged.
        """
        path = self.file(what)
        if not path.exists():
            return None
        _, broken = safetensors("TeacherCache(path=...)")
        from safetensors import safe_open

        try:
            with safe_open(path, framework="pt") as file:
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if path not in self.checked:
                    check_sums(values, (file.metadata() or {}).get("sums"))
                    self.checked.add(path)
                return values
        except (broken, AttributeError, ValueError) as error:
            raise ValueError(f"{path} must be a file of a structure (got {error})") from error

    def write_all(self, what: str, values: Mapping[str, Tensor]) -> None:
        """Keep tensors by name."""
        library, _ = safetensors("TeacherCache(path=...)")
        kept = {name: value.detach().cpu().contiguous() for name, value in values.items()}
        about = {"format": _FORMAT, "of": self._text(what), "sums": sums(kept)}
        write_atomic(self.file(what), library.save(kept, metadata=about))

    def file(self, what: str) -> Path:
        """Return the file of what is made."""
        digest = hashlib.blake2b(self._text(what).encode(), digest_size=16).hexdigest()
        return self.folder / f"{digest}.safetensors"

    def _text(self, what: str) -> str:
        return f"{_FORMAT} {self.name} {what}"
