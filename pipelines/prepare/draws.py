"""Random numbers that are a function of a seed and a row's own ids, so that no order and no block shows in them."""

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


def draws(seed: int, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.uint64]:
    """One uniform 64-bit number per pair: mix(mix(mix(seed) + user) + item), mix a step of SplitMix64."""
    drawn = _mix(np.array(seed % 2**64, np.uint64))
    drawn = _mix(drawn + users.astype(np.uint64))
    return _mix(drawn + items.astype(np.uint64))


def stream(seed: int, purpose: str) -> int:
    """A seed for ``draws`` that is independent of those for other purposes with the same seed."""
    return int.from_bytes(sha256(f"{purpose}/{seed}".encode()).digest()[:8], "little")


def below(drawn: NDArray[np.uint64], n: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Whole numbers uniform in 0 .. n - 1 from uniform 64-bit ones: floor(drawn * n / 2^64), n < 2^32."""
    size = np.asarray(n).astype(np.uint64)
    high, low = drawn >> np.uint64(32), drawn & np.uint64(0xFFFFFFFF)
    return ((high * size + (low * size >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), modulo 2^64."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
