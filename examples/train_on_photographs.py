"""Train GAMIX-VAE on a folder of photographs.

    python train_on_photographs.py path/to/photographs
    python train_on_photographs.py path/to/photographs --recipe gamix --image-size 128 --epochs 100

Any sizes, formats and modes will do. The width-32 recipe is for a CPU; with a GPU the default is the full one.
"""

import argparse

import torch

import vaekit as vk
from vaekit.config import read_recipe, resolve
from vaekit.reporting import Progress

recipe = "gamix" if torch.cuda.is_available() else "gamix-small"
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", help="a folder with images, subfolders included")
parser.add_argument("--recipe", default=recipe, help=f"gamix, gamix-small or a file; {recipe} on this machine")
parser.add_argument("--image-size", type=int, default=64)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--out", help="the run directory; runs/<recipe>-<folder> by default")
parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
options = parser.parse_args()

# Precedence: the recipe, what is laid over it, the data set.
changes = {
    "data": {"image_size": options.image_size, "batch_size": options.batch_size, "flip": True},
    "trainer": {"epochs": options.epochs},
}
run = vk.Run(resolve(read_recipe(options.recipe), changes, data=options.folder), options.out)
fit = run.fit(resume=options.resume, listeners=[Progress()])
if fit.signal:
    raise SystemExit(f"stopped at step {fit.steps}; go on with --resume --out {run.out}")
for source in ("prior", "aggregate-gaussian", "aggregate-mixture"):
    run.sample(64, source, seed=0).save(run.out / f"{source}.png")
print(f"pictures: {run.out}/*.png, report: {run.out}/report.html")
