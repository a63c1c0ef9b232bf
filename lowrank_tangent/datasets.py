"""Data: embedded, from files, fetched; and synthetic targets of known structure."""

from __future__ import annotations

import gzip
import io
import operator
import os
import zlib
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from ._checks import check_number
from ._types import Array, RandomState

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


def load(name: str, n_train: int, random_state: int = 0) -> Bunch:
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

    Raises
    ------
    ValueError
        For an unknown name, or an `n_train` that the data do not have.
    """
    if name == "synthetic":
        n_train = _count(n_train, "n_train", 1)
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
        # One sample of each class has to be left for either part.
        n_train = _count(n_train, "n_train", len(np.unique(y)), len(y) - len(np.unique(y)))
        parts = train_test_split(X / 16.0, y, train_size=n_train, stratify=y, random_state=random_state)
        X_train, X_test, y_train, y_test = parts
        return Bunch(X_train=X_train, y_train=y_train, X_test=X_test, y_test=y_test, is_classification=True)
    if name == "mnist":
        mnist = load_mnist()
        n_train = _count(n_train, "n_train", len(np.unique(mnist.y_train)), len(mnist.y_train))
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


def load_mnist() -> Bunch:
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


def read_idx(path: str | Path) -> Array:
    """Array in a gzipped IDX file of unsigned bytes.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, or no such file; the message names it.
    """
    content = _unzipped(Path(path))
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UNSIGNED_BYTES:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes.")
    n_axes = content[3]
    if len(content) < 4 + 4 * n_axes:
        raise ValueError(f"{path} is cut short: its header ends before the sizes of {n_axes} axes.")
    shape = tuple(np.frombuffer(content, dtype=">u4", count=n_axes, offset=4).astype(int))
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * n_axes)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} is cut short: {values.size} values for shape {shape}.")
    return values.reshape(shape)


def load_cifar10() -> Bunch:
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


def load_table(name: str) -> tuple[Array, Array]:
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
    path = _data_folder(f"uci/{name}.csv.gz") / "uci" / f"{name}.csv.gz"
    content = _unzipped(path)
    if not content.strip():
        raise ValueError(f"{path} is empty; a table of numbers was expected.")
    try:
        table = np.loadtxt(io.BytesIO(content), delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of numbers without a header: {error}") from error
    if not np.isfinite(table).all() or table.shape[1] < 2:
        raise ValueError(f"{path} must have finite numbers in at least two columns; its shape is {table.shape}.")
    return table[:, :-1], table[:, -1]


def _data_folder(wanted: str) -> Path:
    """The folder that the environment variable names."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise FileNotFoundError(f"{wanted} is needed: set {DATA_VARIABLE} to the folder that has it.")
    return Path(folder)


def _unzipped(path: Path) -> bytes:
    """Content of a gzipped file."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {DATA_VARIABLE} must name a folder that has it.")
    try:
        with gzip.open(path, "rb") as file:
            return file.read()
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} is cut short or damaged ({error}). Fetch the file again.") from error
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path} is not a gzip file ({error}). Fetch the file again, or compress it.") from error


def _read_cifar_records(path: Path) -> tuple[Array, Array]:
    """Pixels in [0, 1] and labels of a gzipped file of CIFAR-10 records."""
    content = np.frombuffer(_unzipped(path), dtype=np.uint8)
    if content.size == 0 or content.size % _CIFAR_RECORD:
        raise ValueError(f"{path} is cut short: {content.size} bytes are not whole records of {_CIFAR_RECORD}.")
    records = content.reshape(-1, _CIFAR_RECORD)
    return records[:, 1:] / 255.0, records[:, 0]


def make_square(
    n_samples: int, n_features: int = 50, noise: float = 0.0, random_state: RandomState = None
) -> tuple[Array, Array]:
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

    Raises
    ------
    ValueError, TypeError
        For numbers out of range.
    """
    X, (u,), errors = _normal_design(n_samples, n_features, noise, random_state, 1)
    return X, (X @ u) ** 2 - 1.0 + errors


def make_product(
    n_samples: int, n_features: int = 30, noise: float = 0.0, random_state: RandomState = None
) -> tuple[Array, Array]:
    """y = (uᵀx)(wᵀx) with x standard normal and u, w random orthonormal vectors; two directions matter.

    Parameters and returns as for `make_square`; `n_features` is at least 2.
    """
    X, (u, w), errors = _normal_design(n_samples, n_features, noise, random_state, 2)
    return X, (X @ u) * (X @ w) + errors


def make_gated(
    n_samples: int, n_features: int = 20, noise: float = 0.0, random_state: RandomState = None
) -> tuple[Array, Array]:
    """y = x_0 x_1 [x_5 > 0] with x standard normal: a product of two inputs that a third one switches on.

    Parameters and returns as for `make_square`; `n_features` is at least 6.
    """
    n_samples, n_features = _count(n_samples, "n_samples", 1), _count(n_features, "n_features", 1)
    if n_features < 6:
        raise ValueError(f"n_features must be at least 6, for the sixth input is the switch; got {n_features}.")
    noise, rng = check_number(noise, "noise", positive=False), np.random.default_rng(random_state)
    X = rng.standard_normal((n_samples, n_features))
    return X, X[:, 0] * X[:, 1] * (X[:, 5] > 0.0) + noise * rng.standard_normal(n_samples)


def _normal_design(
    n_samples: int, n_features: int, noise: float, random_state: RandomState, n_directions: int
) -> tuple[Array, Array, Array]:
    """Inputs, orthonormal directions of them, and errors of the targets."""
    n_samples, n_features = _count(n_samples, "n_samples", 1), _count(n_features, "n_features", n_directions)
    noise, rng = check_number(noise, "noise", positive=False), np.random.default_rng(random_state)
    directions, _ = np.linalg.qr(rng.standard_normal((n_features, n_directions)))
    X = rng.standard_normal((n_samples, n_features))
    return X, directions.T, noise * rng.standard_normal(n_samples)


def _count(value: int, name: str, least: int, most: int | None = None) -> int:
    """An integer in a range."""
    allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    try:
        count = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be {allowed}; got {value!r}.") from error
    if count < least or (most is not None and count > most):
        raise ValueError(f"{name} must be {allowed}; got {value!r}.")
    return count
