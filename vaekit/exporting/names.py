"""What can be exported, by name. What the command line offers stands here, apart from torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Format", "What"]

Format: TypeAlias = Literal["onnx", "torch-export"]

What: TypeAlias = Literal["encoder", "decoder", "both"]
