"""Train every recipe of one modality for a moment and put one picture of each on a page.

python gallery.py --data fashion-mnist --epochs 3 --out docs/gallery   # made the gallery of the documentation
python gallery.py --data digits --recipes vae gamix

Each picture has originals, their reconstructions, and two rows of draws from the prior. A recipe that trains with an
adversary takes `--steps` steps instead, for the time it needs.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

import vaekit as vk
from vaekit.config import read_recipe, recipe_names
from vaekit.reporting.images import Images

one_modality = [name for name in recipe_names() if read_recipe(name).get("modalities") is None]
one_modality.remove("gamix-author")
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits", help="a data set of images")
parser.add_argument("--data-root", default=None, help="where it lies")
parser.add_argument("--recipes", nargs="*", default=one_modality)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--steps", type=int, default=300, help="for recipes with an adversary")
parser.add_argument("--out", type=Path, default=Path("gallery"), help="where pictures and page go")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

page = [f"| recipe | {options.data}: originals, reconstructions, two rows of prior draws | steps |", "|---|---|---|"]
for name in options.recipes:
    with tempfile.TemporaryDirectory() as folder:
        limit = {"max_steps": options.steps} if read_recipe(name).get("adversary") else {}
        data = {"name": options.data, **({"root": options.data_root} if options.data_root else {})}
        trainer = {"epochs": options.epochs, "sample_every": 0, **limit}
        run = vk.recipe(name, data=data, out=Path(folder) / "run", trainer=trainer)
        run.fit()
        originals, _ = run.validation_pairs(10)
        parts = [Images(originals, run.model.data_range), run.reconstruct(originals), run.sample(20, seed=0)]
        sheet = Images(torch.cat([part.tensor for part in parts]), run.model.data_range)
        sheet.save(options.out / f"{name}.png", columns=10)
        steps = json.loads((Path(folder) / "run" / "environment.json").read_text())["training"]["steps"]
    page.append(f"| `{name}` | ![{name}]({options.out.name}/{name}.png) | {steps:,} |")
    print(page[-1], flush=True)
(options.out / "table.md").write_text("\n".join(page) + "\n")
