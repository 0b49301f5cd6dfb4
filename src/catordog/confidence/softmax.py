"""Softmax, the one function that makes confidences from raw logits, and how they are written."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Confidences from raw logits: `exp(xᵢ/T) / Σⱼ exp(xⱼ/T)` (Bridle 1990; T: Guo et al. 2017).

    Only differences of logits count: adding the same number to all of them changes nothing.

    Args:
        logits: raw logits `[..., C]`: finite, unnormalised, any sign and size.
        temperature: above 1 makes the confidences humbler, below 1 bolder; the winner stays.

    Returns:
        float64 `[..., C]`, each in 0…1, the sum over the last axis 1.

    Raises:
        CatordogError: a logit is not finite, there is none, or the temperature is not above 0.

    >>> softmax([1.004, 0.709]).round(4).tolist()
    [0.5732, 0.4268]
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise CatordogError(f"a temperature of {temperature} is not a number above 0")
    raw = np.asarray(logits, dtype=np.float64)
    if raw.ndim == 0 or raw.shape[-1] == 0:
        raise CatordogError("softmax needs at least one logit")
    if not np.isfinite(raw).all():
        raise CatordogError("softmax needs finite logits, and one of these is infinite or NaN")
    # The differences are taken before the division: the largest becomes exactly 0.
    with np.errstate(over="ignore", under="ignore"):
        powers = np.exp((raw - raw.max(axis=-1, keepdims=True)) / temperature)
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def format_percent(confidence: float) -> str:
    """A confidence in words, with as many nines as it has: a doubt is never rounded away.

    >>> [format_percent(p) for p in (0.5732, 0.9999, 1 - 9.7e-08, 9.7e-08)]
    ['57 %', '99.99 %', '99.99999 %', '0.00001 %']
    """
    if confidence >= 1:  # softmax is below 1; float64 has no room left to show it
        return "> 99.9999999999999 %"
    exact = Decimal(repr(float(confidence))) * 100
    if 0 < confidence < 0.0095:
        return f"{exact.quantize(Decimal(1).scaleb(exact.adjusted())).normalize():f} %"
    if confidence < 0.9:
        return f"{exact:.0f} %"
    nines = math.floor(-math.log10(1 - confidence) + 1e-9)
    step = Decimal(1).scaleb(1 - nines) if nines > 1 else Decimal(1)
    text = f"{exact.quantize(step, ROUND_FLOOR):f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def format_confidence(confidence: float, digits: int = 4) -> str:
    """A confidence to a fixed number of digits that never reads as certain.

    >>> format_confidence(1 - 9.7e-08), format_confidence(9.7e-08), format_confidence(0.57322)
    ('0.9999', '0.0001', '0.5732')
    """
    least = 10.0**-digits
    return f"{min(max(confidence, least), 1 - least):.{digits}f}"
