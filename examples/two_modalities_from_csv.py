"""Train on a table of your own, a photograph and a sensor in each row, and draw photographs from the sensor alone.

python two_modalities_from_csv.py
python two_modalities_from_csv.py --epochs 100 --out long

The table is made here: digits as photographs, and a sensor that sees how bright each of their rows and columns is. A
third of the samples have no sensor, others no photograph. Of your own table, name the columns below.
"""

import argparse
import csv
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits

import vaekit as vk

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=50)
parser.add_argument("--out", type=Path, default=Path("two-modalities"), help="where table, run and picture go")
options = parser.parse_args()

torch.manual_seed(0)
(options.out / "photos").mkdir(parents=True, exist_ok=True)
digits = torch.from_numpy(load_digits().images / 16)
sensor = torch.cat([digits.sum(2), digits.sum(1)], 1)
sensor = sensor / sensor.std() + 0.1 * torch.randn(sensor.shape)
with (options.out / "table.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["photo", *(f"sensor.{number}" for number in range(16))])
    for row, (digit, numbers) in enumerate(zip(digits, sensor, strict=True)):
        photo = f"photos/{row}.png"
        Image.fromarray((255 * digit).byte().numpy()).resize((16, 16)).save(options.out / photo)
        cells = ["" if row % 3 == 0 else f"{x:.3f}" for x in numbers.tolist()]  # An empty cell: the value is missing.
        table.writerow(["" if row % 9 == 1 else photo, *cells])

run = vk.recipe(
    "masked-multimodal",
    data={"name": str(options.out / "table.csv"), "image_size": 16, "channels": 1, "batch_size": 128},
    out=options.out / "run",
    latent_dim=16,
    backbone={"name": "mlp", "hidden": [256, 256]},
    fusion={"width": 64},
    likelihood={"name": "gaussian", "scale": 0.4},
    modalities={"sensor": {"likelihood": {"name": "gaussian", "scale": 0.2}}},
    trainer={"epochs": options.epochs, "optimizer": {"name": "adam", "lr": 3e-3}, "sample_every": 0},
)
fit = run.fit()
print({name: round(value, 2) for name, value in fit.metrics[-1].items() if isinstance(value, float)})

# Validation samples that have both: their photographs, and below each three draws that have seen its sensor alone.
both = run.data.valid.rows(run.data.valid.available.all(1))
photos, seen = (both.modalities[name].samples[:12] for name in ("photo", "sensor"))
drawn = run.generate({"sensor": seen}, count=3, seed=0).modalities["photo"].unflatten(0, (-1, 3))
rows = torch.cat([photos / 127.5 - 1, *drawn.unbind(1)])
vk.reporting.save_grid(options.out / "from-sensor.png", rows, run.model.data_range["photo"], columns=12)
print(f"photographs drawn from the sensor: {options.out / 'from-sensor.png'}, report: {run.out}/report.html")
