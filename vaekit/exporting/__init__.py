"""Encoder and decoder as files that run without vaekit: ONNX, or PyTorch's own exported programs.

`laws` says what a posterior is as named tensors, `graphs` cuts a model into networks of tensors, `formats` turns one of
them into the bytes of a file, and `writing` checks and writes them with a description beside them.

Everything is imported when first used, so that importing this package costs nothing; `__init__.pyi` says what there is.
"""

from vaekit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, __file__)
