"""From other data sets' forms to those that the readers take."""

from yolox.data.convert.cut import TileSettings
from yolox.data.convert.dota import Conversion, convert_dota
from yolox.data.convert.labels import DOTA_CLASSES

__all__ = ["DOTA_CLASSES", "Conversion", "TileSettings", "convert_dota"]
