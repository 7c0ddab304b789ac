"""Sample, interpolate and plot a latent space.

python latent_space.py                    # trains a small VAE on digits first
python latent_space.py runs/gamix-digits  # looks at a run that is there
"""

import argparse
from pathlib import Path

import torch

import vaekit as vk

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run", nargs="?", help="a run directory; none to train one")
parser.add_argument("--epochs", type=int, default=40, help="for the run that is trained here")
parser.add_argument("--out", type=Path, default=Path("latent-space"), help="where the pictures go")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

if options.run:
    run = vk.Run.load(options.run)
else:
    run = vk.recipe("vae", data="digits", out=options.out / "run", trainer={"epochs": options.epochs})
    run.fit()

# Draws from the prior, and from a Gaussian with the moments of the aggregate posterior.
for source in ("prior", "aggregate-gaussian"):
    run.sample(64, source, seed=0).save(options.out / f"{source}.png")

# Straight lines between the posterior means of pairs of validation images.
first, second = run.validation_pairs(6)
run.interpolate(first, second, steps=8).save(options.out / "interpolations.png", columns=8)

# Posterior means of the validation split, coloured by label where there are labels.
model, valid = run.model.eval(), run.data.valid
batches = vk.data.Batches(valid, 256, data_range=model.data_range, shuffle=False, drop_last=False)
with torch.no_grad():
    means = torch.cat([model.encode(x).mean for x in batches.epoch(0)])
(options.out / "map.png").write_bytes(vk.reporting.latent_map(means, valid.labels))

aggregate = run.aggregate
print(f"{aggregate.active_units} of {model.latent_dim} latent dimensions are active")
print(f"mean posterior variance {aggregate.mean_variance.mean():.3f}; pictures in {options.out}")
