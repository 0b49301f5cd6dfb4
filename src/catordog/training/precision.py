"""Which number format trains fastest on this hardware."""

from __future__ import annotations

import torch

from catordog.terminal import info


def has_bfloat16(device: torch.device) -> bool:
    """Whether this hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()  # its keys depend on the architecture
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile"))
    return False


def fastest_precision(*, gpu: bool, compiled: bool) -> str:
    """Lightning's name of the fastest precision in hardware; one line reports the choice."""
    if gpu:
        fast, where = has_bfloat16(torch.device("cuda")), torch.cuda.get_device_name()
    else:
        fast = has_bfloat16(torch.device("cpu"))
        where = f"CPU, {torch.get_num_threads()} threads"
    precision = "bfloat16 (in hardware)" if fast else "float32"
    info(f"{where}: {precision}, channels last{', compiled' if compiled else ''}")
    return "bf16-mixed" if fast else "32-true"
