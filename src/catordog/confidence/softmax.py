"""Softmax: confidences from raw logits, and confidences as text."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Compute confidences from raw logits: `exp(xᵢ/T) / Σⱼ exp(xⱼ/T)`.

    It is shift-invariant: adding the same number to all logits changes nothing. Sources: Bridle
    1990; for the temperature, Guo et al. 2017, eq. 9.

    Args:
        logits: raw logits `[..., C]`: finite, unnormalised, any sign and size.
        temperature: T; above 1 softens the confidences, below 1 sharpens them. The order of the
            classes stays the same.

    Returns:
        float64 `[..., C]`, each in 0…1, with a sum of 1 over the last axis.

    Raises:
        CatordogError: a logit is not finite, there is no logit, or the temperature is not a
            finite number above 0.

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
    # Subtracting before dividing makes the largest exactly 0, so that exp can't overflow.
    with np.errstate(over="ignore", under="ignore"):
        powers = np.exp((raw - raw.max(axis=-1, keepdims=True)) / temperature)
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def format_percent(confidence: float) -> str:
    """Format a confidence as percent, with as many nines as it has, so that none reads as certain.

    `web/static/softmax.js` has the same function for browsers.

    Args:
        confidence: in 0…1.

    >>> [format_percent(p) for p in (0.5732, 0.9999, 1 - 9.7e-08, 9.7e-08)]
    ['57 %', '99.99 %', '99.99999 %', '0.00001 %']
    """
    # Softmax is above 0 and below 1, also where float64 rounds it to 0 or 1.
    if confidence >= 1:
        return "> 99.9999999999999 %"
    if confidence < 1e-15:
        return "< 0.0000000000001 %"
    exact = Decimal(repr(float(confidence))) * 100
    if confidence < 0.0095:
        return f"{exact.quantize(Decimal(1).scaleb(exact.adjusted())).normalize():f} %"
    if confidence < 0.9:
        return f"{exact:.0f} %"
    nines = math.floor(-math.log10(1 - confidence) + 1e-9)
    step = Decimal(1).scaleb(1 - nines) if nines > 1 else Decimal(1)
    text = f"{exact.quantize(step, ROUND_FLOOR):f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def format_confidence(confidence: float, digits: int = 4) -> str:
    """Format a confidence with a fixed number of digits, never as 0 or 1.

    Args:
        confidence: in 0…1.
        digits: after the decimal point.

    >>> format_confidence(1 - 9.7e-08), format_confidence(9.7e-08), format_confidence(0.57322)
    ('0.9999', '0.0001', '0.5732')
    """
    least = 10.0**-digits
    return f"{min(max(confidence, least), 1 - least):.{digits}f}"
