"""Compose a VAE by hand, from modules, and train it.

python compose_by_hand.py
python compose_by_hand.py --data path/to/images --components 1 --epochs 50
"""

import argparse
from pathlib import Path

import torch

import vaekit as vk

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--data", default="digits", help="a data set's name, a folder of images, an .npz or .npy file of images"
)
parser.add_argument("--components", type=int, default=4, help="components of the posterior mixture")
parser.add_argument("--latent-dim", type=int, default=16)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--out", default="by-hand", help="where pictures and checkpoints go")
options = parser.parse_args()

torch.manual_seed(0)
data = vk.data.load(options.data)

# The likelihood says what the decoder must give; a learned scale balances reconstruction and KL by itself.
likelihood = vk.likelihoods.Gaussian(data.shape, scale=0.5, learned=True)
backbone = vk.backbones.Conv(width=16)
encoder = backbone.encoder(data.shape)
vae = vk.VAE(
    encoder,
    vk.posteriors.GaussianMixture(encoder.features, options.latent_dim, components=options.components),
    vk.priors.StandardNormal(options.latent_dim),
    backbone.decoder(options.latent_dim, likelihood.parameters_shape),
    likelihood,
)
objective = vk.Objective({"kl": vk.regularizers.KL()})
trainer = vk.Trainer(epochs=options.epochs, optimizer={"name": "adam", "lr": 2e-3}, ema=0.99)

fit = trainer.fit(vae, objective, data, out=options.out)
for line in fit.metrics:
    if line["split"] == "valid":
        print(f"epoch {line['epoch'] + 1}: {objective.label} {line['loss']:.2f} nats, kl {line['kl']:.2f} nats")

samples = Path(options.out) / "samples.png"
vk.reporting.save_grid(samples, fit.model.eval().sample(64), vae.data_range)
print(f"64 samples from the prior: {samples}")
