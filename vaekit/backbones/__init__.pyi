from vaekit.backbones.base import Backbone as Backbone
from vaekit.backbones.base import Decoder as Decoder
from vaekit.backbones.base import Encoder as Encoder
from vaekit.backbones.conv import Conv as Conv
from vaekit.backbones.mlp import MLP as MLP
from vaekit.backbones.pvae import PVAE as PVAE
from vaekit.backbones.resnetv2 import ResNetV2 as ResNetV2
