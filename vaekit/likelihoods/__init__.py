"""Likelihoods p(x|z): modules that turn a decoder's output into a distribution over the data.

Everything is imported when first used, so that importing this package costs nothing; `__init__.pyi` says what there is.
"""

from vaekit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, __file__)
