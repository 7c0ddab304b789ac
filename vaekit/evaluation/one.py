"""The metrics of models of one modality."""

from __future__ import annotations

from collections.abc import Mapping

from vaekit.evaluation import bounds, fidelity_metrics, readout
from vaekit.evaluation.disentanglement import disentanglement
from vaekit.evaluation.image_quality import reconstruction, sample_sharpness
from vaekit.evaluation.memorisation import memorisation
from vaekit.evaluation.protocol import Metric

__all__ = ["METRICS_OF_ONE"]

METRICS_OF_ONE: Mapping[str, Metric] = {
    "likelihood": Metric(
        "log p(x) by importance sampling, and bits per dimension; true bounds only", bounds.likelihood
    ),
    "elbo": Metric("distortion and rate, and their sum where it is a negative ELBO", bounds.elbo),
    "latent": Metric("rate, mutual information, active units, KL of each dimension", readout.latent),
    "reconstruction": Metric("PSNR, SSIM, LPIPS, errors and sharpness of reconstructions", reconstruction),
    "probe": Metric("accuracy of logistic regression on the latent; needs labels", readout.probe),
    "neighbours": Metric(
        "accuracy of the five nearest neighbours in the latent space; needs labels", readout.neighbours
    ),
    "sparsity": Metric("how sparsely the latent responds, and the share of zeros of counts", readout.sparsity),
    "disentanglement": Metric("MIG, SAP, DCI, FactorVAE and beta-VAE scores; needs known factors", disentanglement),
    "frechet": Metric("Fréchet distance of generated images: the FID with Inception", fidelity_metrics.frechet),
    "kid": Metric("kernel distance of generated images: the KID with Inception", fidelity_metrics.kid),
    "precision_recall": Metric("precision and recall of generated images", fidelity_metrics.precision_recall),
    "inception_score": Metric("the inception score of generated images", fidelity_metrics.inception_score),
    "sharpness": Metric("sharpness of generated images beside the data's", sample_sharpness),
    "memorisation": Metric("distance of generated images to training images, beside that of unseen ones", memorisation),
}
