"""PyTorch's operators on the meta device, each gone through once for equal arguments.

What an operator returns there follows from its arguments' shapes, strides and types. PyTorch works it out in Python
each time, which takes most of the time of a dry run; here it is remembered, with the work that the operator does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

#: Of a tensor: shape, strides, type.
_Form = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]


class Done(NamedTuple):
    """What one call of an operator gave and did.

    Attributes:
        given: the tensors of `result`.
        traffic_bytes: sizes of the inputs and outputs; 0 of a view.
        flops: two to a multiply-accumulate of convolutions and matrix products; others have none.
    """

    result: Any
    given: Sequence[Tensor]
    traffic_bytes: int
    flops: int


#: How operators are called: `called`, or a `MetaOperators`.
Operators = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Done]


@dataclass(frozen=True)
class _Known:
    """What a call gives and does for arguments of these forms.

    Attributes:
        leaves: of the result one by one: the form of a new tensor, the number of an argument's tensor that is returned
            itself, or None. None altogether where the operator has to be called: its result is a view, or has a form
            of its own.
        several: whether the result is a tuple.
    """

    flops: int
    traffic_bytes: int
    leaves: tuple[_Form | int | None, ...] | None
    several: bool


def called(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Done:
    """Call an operator and count what it does, without remembering anything."""
    with FlopCounterMode(display=False) as counter:
        result = func(*args, **kwargs)
    return _done(func, args, kwargs, result, counter.get_total_flops())


class MetaOperators:
    """Calls operators; where all tensors are on the meta device, remembers what they gave and did.

    One of these may serve any number of dry runs.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, _Known] = {}

    def __call__(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Done:
        taken: list[Tensor] = []
        key = (func, _described(args, taken), _described(tuple(kwargs.items()), taken))
        if not taken or not all(tensor.is_meta for tensor in taken):
            return called(func, args, kwargs)
        known = self._known.get(key)
        if known is None:
            done = called(func, args, kwargs)
            unchanged = key == (func, _described(args, []), _described(tuple(kwargs.items()), []))
            leaves = _leaves(done.result, taken) if unchanged and not _is_view(func) else None
            self._known[key] = _Known(done.flops, done.traffic_bytes, leaves, isinstance(done.result, tuple))
            return done
        if known.leaves is None:
            result = func(*args, **kwargs)
            return Done(result, _tensors(result, []), known.traffic_bytes, known.flops)
        found = [_made(leaf, taken) for leaf in known.leaves]
        given = [each for each in found if each is not None]
        return Done(tuple(found) if known.several else found[0], given, known.traffic_bytes, known.flops)


def _made(leaf: _Form | int | None, taken: Sequence[Tensor]) -> Tensor | None:
    if leaf is None or isinstance(leaf, int):
        return None if leaf is None else taken[leaf]
    shape, strides, dtype = leaf
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


def _done(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, flops: int) -> Done:
    given = _tensors(result, [])
    if _is_view(func):
        return Done(result, given, 0, flops)
    taken = _tensors(list(kwargs.values()), _tensors(args, []))
    return Done(result, given, sum(tensor.numel() * tensor.element_size() for tensor in (*taken, *given)), flops)


def _is_view(func: Callable[..., Any]) -> bool:
    return bool(getattr(func, "is_view", False))


def _tensors(value: Any, found: list[Tensor]) -> list[Tensor]:
    """Those in a value, added to `found`."""
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, list | tuple):
        for each in value:
            _tensors(each, found)
    return found


def _described(value: Any, found: list[Tensor]) -> Hashable:
    """What decides the result of an operator; tensors are added to `found`."""
    if isinstance(value, Tensor):
        found.append(value)
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple([_described(each, found) for each in value])
    # 1, 1.0 and True are equal, and give results of different types.
    return value.__class__, value


def _leaves(result: Any, taken: Sequence[Tensor]) -> tuple[_Form | int | None, ...] | None:
    """How to make the result without the operator; None where that cannot be done."""
    found: list[_Form | int | None] = []
    storages = {tensor.untyped_storage()._cdata for tensor in taken}
    for leaf in result if isinstance(result, tuple) else (result,):
        same = next((index for index, tensor in enumerate(taken) if tensor is leaf), None)
        if leaf is None or same is not None:
            found.append(same)
            continue
        if not isinstance(leaf, Tensor) or not leaf.is_meta or leaf.untyped_storage()._cdata in storages:
            return None
        form = tuple(leaf.shape), leaf.stride(), leaf.dtype
        if _made(form, ()).untyped_storage().nbytes() != leaf.untyped_storage().nbytes():  # type: ignore[union-attr]
            return None
        storages.add(leaf.untyped_storage()._cdata)
        found.append(form)
    return tuple(found)
