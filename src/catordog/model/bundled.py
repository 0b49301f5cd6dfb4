"""The model files that come with the package."""

from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled.onnx"
"""The included model. Its trunk is a general backbone."""

BUNDLED_FIRST = BUNDLED.with_name("bundled-first.onnx")
"""Its first stage."""
