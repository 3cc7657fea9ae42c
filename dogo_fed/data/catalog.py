"""The data sets that have a short name; any other is named by its import path.

A data set is a function of its own options, by keyword, that returns a `DataSet`, or a pair
(train, test) of torch map-style data sets.
"""

from __future__ import annotations

DATASETS = {
    "digits_m": "dogo_fed.data.digits_m:digits_m",
    "digits": "dogo_fed.data.digits:digits",
    "cifar10": "dogo_fed.data.torchvision_sets:cifar10",
    "cifar100": "dogo_fed.data.torchvision_sets:cifar100",
    "stl10": "dogo_fed.data.torchvision_sets:stl10",
    "fashion_mnist": "dogo_fed.data.torchvision_sets:fashion_mnist",
    "image_folder": "dogo_fed.data.files.image_folder:image_folder",
    "npz": "dogo_fed.data.files.npz:npz",
    "webdataset": "dogo_fed.data.files.webdataset:webdataset",
    "hf_dataset": "dogo_fed.data.files.hf_dataset:hf_dataset",
    "tiny_imagenet": "dogo_fed.data.files.imagenet_sets:tiny_imagenet",
    "imagenet": "dogo_fed.data.files.imagenet_sets:imagenet",
    "domainnet": "dogo_fed.data.files.domainnet:domainnet",
    "imbalanced": "dogo_fed.data.imbalanced:imbalanced",
    "synthetic": "dogo_fed.data.synthetic:synthetic",
}

KIN = {"digits_m": "dogo_fed.data.digits_m:KIN"}
"""What data sets say of another one that is made of the same pictures; see `data.kin`."""
