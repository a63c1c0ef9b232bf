"""Data: embedded, from files, fetched; and synthetic targets of known structure."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

#: Folder of data files: ``mnist/train-images-idx3-ubyte.gz`` and so on, ``cifar10/data_batch_1.bin.gz``,
#: ``uci/name.csv.gz``.
DATA_VARIABLE = "LOWRANK_TANGENT_DATA"

_MNIST_FILES = {
    "X_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "X_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
_IDX_UNSIGNED_BYTES = 0x08
#: One CIFAR-10 record: the label, then 32 × 32 pixels of red, of green and of blue.
_CIFAR_RECORD = 1 + 3 * 32 * 32
_SYNTHETIC_TEST_SAMPLES = 2000


def load(name, n_train, random_state=0):
    """Training and test part of a data set.

    Parameters
    ----------
    name : {"digits", "mnist", "synthetic"}
        "digits": scikit-learn's 8 × 8 digits. "mnist": from IDX files in the folder that the environment
        variable LOWRANK_TANGENT_DATA names, else through scikit-learn's `fetch_openml`. "synthetic":
        `make_product` in 30 dimensions with noise 0.1.
    n_train : int
        Number of training samples, drawn at random (stratified for classes); the rest of the training part is unused.
    random_state : int, default=0

    Returns
    -------
    Bunch
        With X_train, y_train, X_test, y_test and `is_classification`.
    """
    if name == "synthetic":
        X, y = make_product(n_train + _SYNTHETIC_TEST_SAMPLES, 30, noise=0.1, random_state=random_state)
        return Bunch(
            X_train=X[:n_train],
            y_train=y[:n_train],
            X_test=X[n_train:],
            y_test=y[n_train:],
            is_classification=False,
        )
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        parts = train_test_split(X / 16.0, y, train_size=n_train, stratify=y, random_state=random_state)
        X_train, X_test, y_train, y_test = parts
        return Bunch(X_train=X_train, y_train=y_train, X_test=X_test, y_test=y_test, is_classification=True)
    if name == "mnist":
        mnist = load_mnist()
        n_left = len(mnist.X_train) - n_train
        if n_left > 0:
            # So few left out that there is not one of each class cannot be drawn by class.
            classes = mnist.y_train if n_left >= len(np.unique(mnist.y_train)) else None
            kept, _ = train_test_split(
                np.arange(len(mnist.X_train)), train_size=n_train, stratify=classes, random_state=random_state
            )
            mnist.X_train, mnist.y_train = mnist.X_train[kept], mnist.y_train[kept]
        return Bunch(is_classification=True, **mnist)
    raise ValueError(f"data must be 'digits', 'mnist' or 'synthetic'; got {name!r}.")


def load_mnist():
    """MNIST digits in their original order, pixels in [0, 1].

    Returns
    -------
    Bunch
        X_train (60000, 784), y_train, X_test (10000, 784), y_test.

    Raises
    ------
    FileNotFoundError
        If LOWRANK_TANGENT_DATA is set but lacks the files.
    OSError
        If it is not set and OpenML cannot be reached.
    """
    folder = os.environ.get(DATA_VARIABLE)
    if folder:
        arrays = {key: read_idx(Path(folder) / "mnist" / name) for key, name in _MNIST_FILES.items()}
    else:
        try:
            X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
        except OSError as error:
            raise OSError(
                f"MNIST could not be fetched from OpenML ({error}). Without a network, set {DATA_VARIABLE} to the "
                f"folder that has mnist/{_MNIST_FILES['X_train']} and the three files beside it."
            ) from error
        y = y.astype(np.uint8)
        arrays = {"X_train": X[:60_000], "y_train": y[:60_000], "X_test": X[60_000:], "y_test": y[60_000:]}
    for part in ("X_train", "X_test"):
        images = arrays[part]
        arrays[part] = images.reshape(len(images), -1) / 255.0
    return Bunch(**arrays)


def read_idx(path):
    """Array in a gzipped IDX file of unsigned bytes.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, or no such file; the message names it.
    """
    with gzip.open(_existing(Path(path)), "rb") as file:
        content = file.read()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UNSIGNED_BYTES:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes.")
    n_axes = content[3]
    shape = tuple(np.frombuffer(content, dtype=">u4", count=n_axes, offset=4).astype(int))
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * n_axes)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} is cut short: {values.size} values for shape {shape}.")
    return values.reshape(shape)


def load_cifar10():
    """CIFAR-10 images from the binary records under LOWRANK_TANGENT_DATA, pixels in [0, 1].

    Returns
    -------
    Bunch
        X_train (n, 3072), y_train, X_test (n', 3072), y_test: all samples of the files cifar10/data_batch_*.bin.gz, in
        the order of their names, and of cifar10/test_batch.bin.gz.

    Raises
    ------
    FileNotFoundError, ValueError
        If the variable or a file is missing, or a file does not hold whole records; the message names it.
    """
    folder = _data_folder("cifar10/test_batch.bin.gz") / "cifar10"
    batches = sorted(folder.glob("data_batch_*.bin.gz")) or [folder / "data_batch_1.bin.gz"]
    parts = [_read_cifar_records(path) for path in batches]
    X_train, y_train = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    X_test, y_test = _read_cifar_records(folder / "test_batch.bin.gz")
    return Bunch(X_train=X_train, y_train=y_train, X_test=X_test, y_test=y_test)


def load_table(name):
    """A table of numbers from uci/name.csv.gz under LOWRANK_TANGENT_DATA: no header, the last column is the target.

    Parameters
    ----------
    name : str

    Returns
    -------
    X : ndarray of shape (n, n_features)
    y : ndarray of shape (n,)

    Raises
    ------
    FileNotFoundError, ValueError
        If the variable or the file is missing, or the file is no such table; the message names it.
    """
    path = _existing(_data_folder(f"uci/{name}.csv.gz") / "uci" / f"{name}.csv.gz")
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of numbers without a header: {error}") from error
    if not np.isfinite(table).all() or table.shape[1] < 2:
        raise ValueError(f"{path} must have finite numbers in at least two columns; its shape is {table.shape}.")
    return table[:, :-1], table[:, -1]


def _data_folder(wanted):
    """The folder that the environment variable names."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise FileNotFoundError(f"{wanted} is needed: set {DATA_VARIABLE} to the folder that has it.")
    return Path(folder)


def _existing(path):
    """The path, if there is such a file."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {DATA_VARIABLE} must name a folder that has it.")
    return path


def _read_cifar_records(path):
    """Pixels in [0, 1] and labels of a gzipped file of CIFAR-10 records."""
    with gzip.open(_existing(path), "rb") as file:
        content = np.frombuffer(file.read(), dtype=np.uint8)
    if content.size == 0 or content.size % _CIFAR_RECORD:
        raise ValueError(f"{path} is cut short: {content.size} bytes are not whole records of {_CIFAR_RECORD}.")
    records = content.reshape(-1, _CIFAR_RECORD)
    return records[:, 1:] / 255.0, records[:, 0]


def make_square(n_samples, n_features=50, noise=0.0, random_state=None):
    """y = (uᵀx)² − 1 with x standard normal and u a random unit vector; one direction matters.

    Parameters
    ----------
    n_samples, n_features : int
    noise : float, default=0.0
        Standard deviation of added noise.
    random_state : int, Generator or None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
    """
    rng = np.random.default_rng(random_state)
    X, (u,) = _normal_design(rng, n_samples, n_features, 1)
    return X, (X @ u) ** 2 - 1.0 + noise * rng.standard_normal(n_samples)


def make_product(n_samples, n_features=30, noise=0.0, random_state=None):
    """y = (uᵀx)(wᵀx) with x standard normal and u, w random orthonormal vectors; two directions matter.

    Parameters and returns as for `make_square`.
    """
    rng = np.random.default_rng(random_state)
    X, (u, w) = _normal_design(rng, n_samples, n_features, 2)
    return X, (X @ u) * (X @ w) + noise * rng.standard_normal(n_samples)


def make_gated(n_samples, n_features=20, noise=0.0, random_state=None):
    """y = x_0 x_1 [x_5 > 0] with x standard normal: a product of two inputs that a third one switches on.

    Parameters and returns as for `make_square`; `n_features` is at least 6.
    """
    if n_features < 6:
        raise ValueError(f"n_features must be at least 6, for the sixth input is the switch; got {n_features}.")
    rng = np.random.default_rng(random_state)
    X = rng.standard_normal((n_samples, n_features))
    return X, X[:, 0] * X[:, 1] * (X[:, 5] > 0.0) + noise * rng.standard_normal(n_samples)


def _normal_design(rng, n_samples, n_features, n_directions):
    directions, _ = np.linalg.qr(rng.standard_normal((n_features, n_directions)))
    return rng.standard_normal((n_samples, n_features)), directions.T
