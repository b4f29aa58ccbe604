"""What is kept, and why."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import FREED_BY, Reason

__all__ = ["Explanation", "Row", "explain", "refusal", "tell"]

_GIVEN = "inputs, and what is made of kept channels, have no channels that could be pruned"
_MOST = 6  # lines of a refusal
_HEAD = ("kept", "channels", "where", "why", "what would free it")


@dataclass(frozen=True)
class Row:
    """Channels that are kept.

    Args:
        name (str): The layers, or the parameter, whose channels they are.
        channels (int): How many.
        where (str): The module, the function, the file and the line.
        why (str): Why they are kept.
        freed_by (str): What would change that.
        is_natural (bool): Whether this is so by nature, as for the outputs of a model.
    """

    name: str
    channels: int
    where: str
    why: str
    freed_by: str
    is_natural: bool


@dataclass(frozen=True)
class Explanation:
    """A table of what is kept; it prints as one.

    Args:
        rows (tuple of Row): Its rows.
    """

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        if not self.rows:
            return "All channels can be pruned."
        lines = [_HEAD]
        lines += [(r.name, str(r.channels), r.where, r.why, r.freed_by) for r in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def explain(ports: Ports) -> Explanation:
    """Return the table of what is kept in a model."""
    first: dict[int, Reason] = {}
    for reason in ports.reasons:
        for unit in reason.channels:
            first.setdefault(ports.find(unit), reason)
    rows: dict[tuple[str, str, str], Row] = {}
    for name, channels in ports.axes:
        units = {ports.find(unit) for unit in channels}
        for reason in dict.fromkeys(first[unit] for unit in sorted(units) if unit in first):
            count = sum(first.get(unit) is reason for unit in units)
            why = f"in train mode {reason.why}" if name in ports.in_training else reason.why
            rows[name, reason.where, why] = Row(
                name,
                count,
                _where(reason),
                why,
                FREED_BY.get(reason.kind, ""),
                reason.is_natural,
            )
    for name, count in _given(ports, first).items():
        rows[name, "", _GIVEN] = Row(name, count, "", _GIVEN, "", True)
    return Explanation(tuple(rows.values()))


def _given(ports: Ports, first: Mapping[int, Reason]) -> dict[str, int]:
    """Return the modules, and how many channels, that came in kept, of which no reason is noted."""
    found: dict[str, int] = {}
    for name, dims in ports.owned.items():
        units = {ports.find(unit) for channels in dims.values() for unit in channels}
        if ports.is_followed and all(map(ports.is_frozen, units)) and not units & first.keys():
            module = name.rpartition(".")[0] or name
            found[module] = max(found.get(module, 0), *map(len, dims.values()))
    return found


def refusal(table: Explanation) -> str:
    r"""Return why nothing can be pruned, a line for each reason; those to mend come first.

    Example:
        >>> from dataclasses import replace
        >>> row = Row("a", 4, "softmax, net.py:3", "it mixes channels", "a rule", False)
        >>> refusal(Explanation((row, replace(row, name="b"))))
        '\n  a, b: it mixes channels (softmax, net.py:3); what would free it: a rule'
    """
    names: dict[tuple[bool, str, str, str], list[str]] = {}
    for row in sorted(table, key=lambda row: row.is_natural):
        names.setdefault((row.is_natural, row.why, row.where, row.freed_by), []).append(row.name)
    lines = []
    for (_, why, where, freed_by), of in names.items():
        more = f" and {len(of) - 3} more" if len(of) > 3 else ""
        lines.append(f"{', '.join(of[:3])}{more}: {why}{f' ({where})' if where else ''}")
        lines[-1] += f"; what would free it: {freed_by}" if freed_by else ""
    if len(lines) > _MOST:
        lines[_MOST - 1 :] = [f"and {len(lines) - _MOST + 1} reasons more"]
    return "".join(f"\n  {line}" for line in lines)


def _where(reason: Reason) -> str:
    return ", ".join(p for p in (reason.module, reason.function, reason.where) if p)


def tell(table: Explanation, strict: bool) -> None:
    """Warn of what is kept for want of knowledge, or raise."""
    kept = [row for row in table if not row.is_natural]
    if not kept:
        return
    text = "; ".join(
        f"{row.name} ({row.why}{f', {row.where}' if row.where else ''})" for row in kept
    )
    if strict:
        raise ValueError(f"'strict' allows no channels that are kept (got: {text})")
    warnings.warn(f"These channels are kept, see explain(): {text}", stacklevel=3)
