"""Fit a VAE with Pyro's own inference, `pyro.infer.SVI`, instead of vaekit's trainer.

    python svi_with_pyro.py                     # the ELBO, with a closed-form KL
    python svi_with_pyro.py --objective gamix   # the GAMIX surrogate, without adversary

Both give the loss and the gradients that `vaekit.Trainer` would.
"""

import argparse

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

import vaekit as vk

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--objective", choices=["elbo", "gamix"], default="elbo")
parser.add_argument("--data", default="digits")
parser.add_argument("--epochs", type=int, default=10)
options = parser.parse_args()

pyro.set_rng_seed(0)
data = vk.data.load(options.data)
likelihood = vk.likelihoods.Laplace(data.shape, scale=0.2)
backbone = vk.backbones.MLP(hidden=[256, 128])
encoder = backbone.encoder(data.shape)
posteriors = {"elbo": vk.posteriors.Gaussian, "gamix": vk.posteriors.GaussianMixture}
vae = vk.VAE(
    encoder,
    posteriors[options.objective](encoder.features, 16),
    vk.priors.StandardNormal(16),
    backbone.decoder(16, likelihood.parameters_shape),
    likelihood,
)

optimizer = pyro.optim.ClippedAdam({"lr": 1e-3})
if options.objective == "elbo":
    svi, arguments = SVI(vae.model, vae.guide, optimizer, TraceMeanField_ELBO()), ()
else:
    # The regularizers enter as a factor of the guide; `z` is masked, so that no KL is counted twice.
    terms = {
        "population_kl": vk.regularizers.PopulationKL(variance="total"),
        "collapse": vk.regularizers.VarianceCollapse(),
    }
    svi, arguments = SVI(vae.model, vae.guide, optimizer, Trace_ELBO()), (vk.Objective(terms).regularization,)

batches = vk.data.Batches(data.train, 64, data_range=vae.data_range, seed=0, drop_last=True)
for epoch in range(options.epochs):
    losses = [svi.step(x, *arguments) for x in batches.epoch(epoch)]
    print(f"epoch {epoch + 1}: {sum(losses) / len(losses):.2f} nats per sample")

with torch.no_grad():
    x = next(iter(batches.epoch(0)))
    print(f"mean absolute error of reconstructions: {(vae.reconstruct(x) - x).abs().mean():.3f} in [-1, 1]")
