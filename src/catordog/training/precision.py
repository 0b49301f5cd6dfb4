"""Which number format trains fastest on this hardware."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether this hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()  # its keys depend on the architecture
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile"))
    return False


def fastest_precision(*, gpu: bool) -> str:
    """Lightning's name of the fastest precision in hardware."""
    return "bf16-mixed" if has_bfloat16(torch.device("cuda" if gpu else "cpu")) else "32-true"


def described(precision: str, *, gpu: bool, compiled: bool) -> str:
    """The choice of `fastest_precision` in words, with the hardware that it is for."""
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    words = "bfloat16 (in hardware)" if precision == "bf16-mixed" else "float32"
    return f"{where}: {words}, channels last{', compiled' if compiled else ''}"
