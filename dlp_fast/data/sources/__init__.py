"""Where images come from: the embedded digits, CIFAR-10, a folder, arrays, a torchvision dataset."""

from dlp_fast.data.sources.arrays import from_arrays
from dlp_fast.data.sources.dataset import Dataset, ImageSet
from dlp_fast.data.sources.folder import load_split
from dlp_fast.data.sources.given import from_python
from dlp_fast.data.sources.indexed import choose_loader
from dlp_fast.data.sources.items import from_torchvision
from dlp_fast.data.sources.load import load

__all__ = [
    "Dataset",
    "ImageSet",
    "choose_loader",
    "from_arrays",
    "from_python",
    "from_torchvision",
    "load",
    "load_split",
]
