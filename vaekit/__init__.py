"""vaekit: interchangeable probabilistic components for training variational autoencoders.

    import vaekit as vk
    run = vk.recipe("gamix", data="digits")
    run.fit()

Everything is imported when first used, so `import vaekit` is quick; `__init__.pyi` says what there is.
"""

from vaekit.lazy import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(__name__, __file__)
