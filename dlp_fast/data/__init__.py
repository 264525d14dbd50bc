"""Images from a folder that is not trusted: checked, indexed, and given by id."""

from dlp_fast.data.index import ImageIndex, find_conflicts, index_folder, write_quarantine
from dlp_fast.data.scan import Quarantined, ScanRecord, scan_files
from dlp_fast.data.sources import Dataset, ImageSet, from_arrays, from_torchvision, load, load_split
from dlp_fast.data.storage import FileImages, ResidentImages
from dlp_fast.runs.names import csv_cell, printable

__all__ = [
    "Dataset",
    "FileImages",
    "ImageIndex",
    "ImageSet",
    "Quarantined",
    "ResidentImages",
    "ScanRecord",
    "csv_cell",
    "find_conflicts",
    "from_arrays",
    "from_torchvision",
    "index_folder",
    "load",
    "load_split",
    "printable",
    "scan_files",
    "write_quarantine",
]
