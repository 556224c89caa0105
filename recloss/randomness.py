"""Random numbers as a function of (seed, epoch, purpose, position): no hidden state, the same on any number of workers.

A counter-based generator: the output is the splitmix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) of a counter.
"""

import hashlib

import torch
from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MUL_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MUL_2 = -7723592293110705685  # 0x94D049BB133111EB


def stream_key(seed: int, epoch: int, purpose: str) -> int:
    """A 63-bit key for the random stream of one purpose in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(n: int, key: int) -> Tensor:
    """(n,) a uniform permutation of ``0 .. n - 1``, drawn on the CPU."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(key))


def row_states(key: int, positions: Tensor) -> Tensor:
    """An int64 state for each position of the stream ``key``; the start of that position's own sequence."""
    return _mix(positions * _GAMMA + key)


def integers(states: Tensor, counter: Tensor, high: int | Tensor) -> Tensor:
    """Integers in ``0 .. high - 1``, the ``counter``-th of the sequence of each state (shapes broadcast).

    Uniform up to a relative bias of ``high / 2**32`` (Lemire's multiply-shift on 32 random bits).
    """
    bits = _mix(states + counter * _GAMMA).bitwise_right_shift_(32).bitwise_and_(0xFFFFFFFF)
    return (bits * high).bitwise_right_shift_(32)


def reals(states: Tensor, counter: Tensor) -> Tensor:
    """Float64 multiples of 2**-48, uniform in [0, 1), the ``counter``-th of the sequence of each state.

    A product with an integer of up to 2**44 stays below that integer.
    """
    bits = _mix(states + counter * _GAMMA).bitwise_right_shift_(16).bitwise_and_(0xFFFFFFFFFFFF)
    return bits.double().mul_(2.0**-48)


def _mix(z: Tensor) -> Tensor:
    """Splitmix64's finaliser, in place."""
    for shift, mask, factor in ((30, 0x3FFFFFFFF, _MUL_1), (27, 0x1FFFFFFFFF, _MUL_2)):
        z.bitwise_xor_((z >> shift).bitwise_and_(mask)).mul_(factor)
    return z.bitwise_xor_((z >> 31).bitwise_and_(0x1FFFFFFFF))
