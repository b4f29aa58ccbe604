"""The arguments of a call by the names that the called module gives them."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn

__all__ = ["Signatures", "bind_inputs", "signature_of"]

Plain: TypeAlias = tuple[list[str], int] | None


class Signatures:
    """The signatures of modules, each looked up once. Copies and pickles are empty.

    Example:
        >>> signatures, layer = Signatures(), nn.Identity()
        >>> signatures.bind(layer, (1,), {}), signatures.bind(layer, (), {"input": 2})
        ({'input': 1}, {'input': 2})
    """

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[Any, tuple[inspect.Signature | None, Plain]]
        self._of = weakref.WeakKeyDictionary()

    def bind(
        self, module: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments of one call of a module by name, as :func:`bind_inputs`."""
        known = self._of.get(module)
        if known is None:
            signature = signature_of(module)
            known = self._of[module] = signature, _plain(signature)
        signature, plain = known
        if plain is not None and len(args) <= len(plain[0]):  # as most layers are called
            names, least = plain
            bound = dict(zip(names, args, strict=False))
            if not kwargs and len(args) >= least:
                return bound
            rest = names[len(args) :]
            bound.update({name: kwargs[name] for name in rest if name in kwargs})
            whole = len(bound) == len(args) + len(kwargs)
            if whole and all(name in bound for name in names[len(args) : least]):
                return bound
        return _bind(signature, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def bind_inputs(
    module: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of one call of a module, or of a function, by name.

    Arguments that a signature does not name (``forward(*args)``) are called by their place,
    ``"0"``, ``"1"``, ...; a wrapper, such as a compiled model, has the names of what it wraps.

    Example:
        >>> bind_inputs(nn.Identity(), (1,), {})
        {'input': 1}
    """
    return _bind(signature_of(module), args, kwargs)


def signature_of(module: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a module, through torch.compile, DDP, DataParallel and the like.

    Example:
        >>> list(signature_of(nn.ReLU()).parameters)
        ['input']
    """
    try:
        signature = inspect.signature(module.forward if isinstance(module, nn.Module) else module)
    except (TypeError, ValueError):
        return None
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
    if isinstance(inner, nn.Module) and all(
        argument.kind in starred for argument in signature.parameters.values()
    ):
        return signature_of(inner)
    return signature


def _plain(signature: inspect.Signature | None) -> Plain:
    """Return the names of all arguments and how many of them must be given, where each may be given
    by place or by name; None where it is not so.
    """
    if signature is None:
        return None
    given = list(signature.parameters.values())
    if any(x.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD for x in given):
        return None
    least = sum(x.default is inspect.Parameter.empty for x in given)
    return [x.name for x in given], least


def _bind(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    bound: dict[str, Any] = {}
    try:
        if signature is None:
            raise TypeError
        arguments = signature.bind(*args, **kwargs)
    except TypeError:  # no signature to be had: names are lost, values are not
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    for name, value in arguments.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            start = len(bound)
            bound.update({str(start + i): item for i, item in enumerate(value)})
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.update(value)
        else:
            bound[name] = value
    return bound
