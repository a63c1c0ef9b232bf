import gzip
import os
import warnings

import numpy as np
import pytest

from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressor, AdaptiveTangentRegressorCV, datasets
from lowrank_tangent.displays import KernelAlignmentDisplay, mean_over_outputs
from lowrank_tangent.theory import alignment


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def folder(tmp_path, rng, monkeypatch):
    """A tiny MNIST in the original format."""
    for part, n in (("train", 40), ("t10k", 8)):
        write_idx(tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 28, 28)))
        write_idx(tmp_path / "mnist" / f"{part}-labels-idx1-ubyte.gz", np.arange(n) % 4)
    monkeypatch.setenv("LOWRANK_TANGENT_DATA", str(tmp_path))
    return tmp_path


def test_idx_files_are_read(folder):
    data = datasets.load("mnist", 20, random_state=1)
    assert data.X_train.shape == (20, 784)
    assert data.X_test.shape == (8, 784)
    assert 0 <= data.X_train.min() < data.X_train.max() <= 1
    np.testing.assert_array_equal(np.bincount(data.y_train), [5, 5, 5, 5])
    np.testing.assert_array_equal(data.y_test, np.arange(8) % 4)
    raw = datasets.read_idx(folder / "mnist" / "t10k-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(data.X_test, raw.reshape(8, -1) / 255)


@pytest.mark.parametrize("n_train", [36, 37, 39, 40])
def test_nearly_all_of_mnist_can_be_drawn(folder, n_train):
    data = datasets.load("mnist", n_train)
    assert len(data.X_train) == len(data.y_train) == n_train


def test_broken_idx_files_are_named(folder):
    path = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    with gzip.open(path, "rb") as file:
        content = file.read()
    with gzip.open(path, "wb") as file:
        file.write(content[:-5])
    with pytest.raises(ValueError, match=r"t10k-images.* is cut short"):
        datasets.load_mnist()
    with gzip.open(path, "wb") as file:
        file.write(b"no digits")
    with pytest.raises(ValueError, match="not an IDX file"):
        datasets.load_mnist()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="LOWRANK_TANGENT_DATA must name a folder"):
        datasets.load_mnist()


def damaged(content):
    """What may be left of a gzipped file, with what has to be said of it."""
    return [
        (content[: len(content) // 2], "is cut short or damaged"),
        (content[:-4], "is cut short or damaged"),
        (content[:15] + bytes(9) + content[24:], "is cut short or damaged|is not a gzip file"),
        (content[:-8] + bytes(8), "is cut short or damaged|is not a gzip file"),
        (b"<html>not found</html>", "is not a gzip file"),
        (gzip.compress(b""), "."),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "."),
        (b"", "."),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("mnist/t10k-labels-idx1-ubyte.gz", b"\0\0\x08\x01\0\0\0\x28" + bytes(40), datasets.load_mnist),
        ("cifar10/test_batch.bin.gz", bytes(np.arange(3073 * 2) % 251), datasets.load_cifar10),
        ("uci/some.csv.gz", b"1.5,2.5\n3,4\n" * 40, lambda: datasets.load_table("some")),
    ],
)
def test_damaged_files_are_named(folder, name, content, read):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if "cifar10" in name:
        (path.parent / "data_batch_1.bin.gz").write_bytes(gzip.compress(content))
    path.write_bytes(gzip.compress(content))
    read()
    for left, message in damaged(gzip.compress(content)):
        path.write_bytes(left)
        with pytest.raises(ValueError, match=message) as raised:
            read()
        assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load("synthetic", -5), "n_train must be an integer >= 1; got -5"),
        (lambda: datasets.load("synthetic", 0), "n_train must be an integer >= 1; got 0"),
        (lambda: datasets.load("digits", 5), "n_train must be an integer from 10 to 1787; got 5"),
        (lambda: datasets.load("digits", 1797), "n_train must be an integer from 10 to 1787; got 1797"),
        (lambda: datasets.load("mnist", 0), "n_train must be an integer from 4 to 40; got 0"),
        (lambda: datasets.load("mnist", 41), "n_train must be an integer from 4 to 40; got 41"),
        (lambda: datasets.make_product(10, 1), "n_features must be an integer >= 2; got 1"),
        (lambda: datasets.make_square(10, 0), "n_features must be an integer >= 1; got 0"),
        (lambda: datasets.make_gated(10, 5), "n_features must be at least 6, for the sixth input is the switch; got 5"),
        (lambda: datasets.make_square(0), "n_samples must be an integer >= 1; got 0"),
        (lambda: datasets.make_product(-3), "n_samples must be an integer >= 1; got -3"),
        (lambda: datasets.make_gated(10, noise=-1.0), "noise must be a finite number >= 0; got -1.0"),
        (lambda: datasets.make_square(10, noise=np.nan), "noise must be a finite number >= 0; got nan"),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_range(folder, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_of_samples_are_integers():
    for call in (datasets.make_square, datasets.make_product, datasets.make_gated):
        with pytest.raises(TypeError, match=r"n_samples must be an integer >= 1; got 2\.5"):
            call(2.5)
        assert len(call(np.int32(3))[0]) == 3


@pytest.mark.skipif("LOWRANK_TANGENT_DATA" not in os.environ, reason="needs MNIST under LOWRANK_TANGENT_DATA")
def test_mnist_is_mnist():
    data = datasets.load_mnist()
    assert data.X_train.shape == (60_000, 784)
    assert data.X_test.shape == (10_000, 784)
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]


def test_cifar_records_are_read(tmp_path, rng, monkeypatch):
    monkeypatch.setenv("LOWRANK_TANGENT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin\.gz does not exist; LOWRANK_TANGENT_DATA must"):
        datasets.load_cifar10()
    (tmp_path / "cifar10").mkdir()
    pixels = rng.integers(0, 256, (7, 3, 32, 32)).astype(np.uint8)
    names = ("data_batch_2", "data_batch_1", "test_batch")
    for name, some in zip(names, np.split(np.arange(7), [2, 5]), strict=True):
        records = b"".join(bytes([label]) + pixels[label].tobytes() for label in some)
        with gzip.open(tmp_path / "cifar10" / f"{name}.bin.gz", "wb") as file:
            file.write(records)
    data = datasets.load_cifar10()
    assert data.y_train.tolist() == [2, 3, 4, 0, 1]
    assert data.y_test.tolist() == [5, 6]
    np.testing.assert_allclose(data.X_train, pixels[[2, 3, 4, 0, 1]].reshape(5, -1) / 255.0)
    np.testing.assert_allclose(data.X_test[1, 1024:2048], pixels[6, 1].ravel() / 255.0)
    with gzip.open(tmp_path / "cifar10" / "test_batch.bin.gz", "wb") as file:
        file.write(records[:-1])
    with pytest.raises(ValueError, match=r"test_batch.*is cut short: 6145 bytes"):
        datasets.load_cifar10()


def test_tables_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWRANK_TANGENT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"wine\.csv\.gz does not exist; LOWRANK_TANGENT_DATA must"):
        datasets.load_table("wine")
    (tmp_path / "uci").mkdir()
    for content, problem in (
        ("1,2,-3e-2\n4,5,6\n", None),
        ("acid,sugar,quality\n1,2,3\n", "not a table of numbers"),
        ("1,2,3\n4,5\n", "not a table of numbers"),
        ("1,2,nan\n", "must have finite numbers"),
        ("1\n2\n", "at least two columns"),
    ):
        with gzip.open(tmp_path / "uci" / "wine.csv.gz", "wt") as file:
            file.write(content)
        if problem is None:
            X, y = datasets.load_table("wine")
            assert X.tolist() == [[1.0, 2.0], [4.0, 5.0]]
            assert y.tolist() == [-0.03, 6.0]
        else:
            with pytest.raises(ValueError, match=problem):
                datasets.load_table("wine")


@pytest.mark.skipif("LOWRANK_TANGENT_DATA" not in os.environ, reason="needs CIFAR-10 under LOWRANK_TANGENT_DATA")
def test_cifar_is_cifar():
    data = datasets.load_cifar10()
    assert np.unique(data.y_train).tolist() == list(range(10))
    # Photographs: neighbouring pixels of a colour are alike, the same pixel in two colours as well.
    images = data.X_test[:500].reshape(500, 3, 32, 32)
    for first, second in ((images[..., 1:], images[..., :-1]), (images[:, 0], images[:, 1])):
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("load", [datasets.load_cifar10, lambda: datasets.load_table("wine")])
def test_files_that_cannot_be_fetched_name_the_variable(load, monkeypatch):
    monkeypatch.delenv("LOWRANK_TANGENT_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set LOWRANK_TANGENT_DATA to the folder"):
        load()


def test_mnist_is_fetched_without_files(monkeypatch):
    monkeypatch.delenv("LOWRANK_TANGENT_DATA", raising=False)
    asked = []

    def fetch(name, **options):
        asked.append(name)
        return np.full((70_000, 2), 255.0), np.array(["3"] * 70_000)

    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    data = datasets.load_mnist()
    assert asked == ["mnist_784"]
    assert data.X_test.shape == (10_000, 2)
    assert data.X_test.max() == 1.0
    assert data.y_test[0] == 3


def test_synthetic_targets_have_the_structure_they_promise():
    X, y = datasets.make_square(4000, 5, random_state=0)
    moments = np.einsum("i,ij,ik->jk", y, X, X) / len(X)
    values = np.linalg.eigvalsh(moments)
    # E[y x xᵀ] = 2 u uᵀ, up to sampling error.
    assert values[-1] == pytest.approx(2.0, abs=0.5)
    assert np.abs(values[:-1]).max() < 0.5
    X, y = datasets.make_product(4000, 5, random_state=0)
    values = np.linalg.eigvalsh(np.einsum("i,ij,ik->jk", y, X, X) / len(X))
    # E[y x xᵀ] = u wᵀ + w uᵀ has the eigenvalues ±1.
    np.testing.assert_allclose(values[[0, -1]], [-1, 1], atol=0.3)
    assert np.abs(values[1:-1]).max() < 0.3
    noisy = datasets.make_product(4000, 5, noise=0.5, random_state=0)[1]
    assert (noisy - y).std() == pytest.approx(0.5, rel=0.1)
    X, y = datasets.make_gated(4000, 7, random_state=0)
    off = X[:, 5] <= 0.0
    assert not y[off].any()
    np.testing.assert_array_equal(y[~off], np.prod(X[~off, :2], axis=1))
    noisy = datasets.make_gated(4000, 7, noise=0.5, random_state=0)[1]
    assert (noisy - y).std() == pytest.approx(0.5, rel=0.1)
    with pytest.raises(ValueError, match="n_features must be at least 6"):
        datasets.make_gated(10, 5)


def test_loaded_data_are_split_without_overlap():
    data = datasets.load("digits", 200, random_state=3)
    rows = {row.tobytes() for row in data.X_train}
    assert len(rows) == 200
    assert not any(row.tobytes() in rows for row in data.X_test)
    again = datasets.load("digits", 200, random_state=3)
    np.testing.assert_array_equal(data.X_train, again.X_train)
    with pytest.raises(ValueError, match="'digits', 'mnist' or 'synthetic'; got 'iris'"):
        datasets.load("iris", 10)


@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_display_shows_the_kernels_of_the_estimator(rng, outputs):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    X = rng.standard_normal((30, 3))
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    model = AdaptiveTangentClassifier((8,), outputs=outputs, random_state=0).fit(X, y)
    display = KernelAlignmentDisplay.from_estimator(model, X, y)
    assert [ax.get_title() for ax in display.axes_] == ["initial kernel", "adapted kernel", "label kernel"]
    order = np.argsort(y, kind="stable")
    expected = mean_over_outputs(model.kernel(X[order]), 30)
    np.testing.assert_allclose(display.kernels["adapted kernel"], expected)
    shown = float(display.axes_[1].get_xlabel().removeprefix("alignment with labels "))
    assert shown == pytest.approx(alignment(expected, display.kernels["label kernel"]), abs=1e-3)
    plt.close(display.figure_)


def test_display_takes_choices_and_data_frames(rng):
    plt, pandas = pytest.importorskip("matplotlib.pyplot"), pytest.importorskip("pandas")
    plt.switch_backend("Agg")
    X, y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AdaptiveTangentRegressorCV(depths=[1], biases=[1.0], max_rounds=1, cv=2).fit(frame, y)
        display = KernelAlignmentDisplay.from_estimator(model, frame, y)
    order = np.argsort(y)
    np.testing.assert_allclose(display.kernels["adapted kernel"], model.kernel(frame.iloc[order]))
    np.testing.assert_allclose(
        display.kernels["initial kernel"], model.best_estimator_.initial_kernel(frame.iloc[order])
    )
    plt.close(display.figure_)


def test_display_thins_out_large_data(rng):
    pytest.importorskip("matplotlib.pyplot").switch_backend("Agg")
    X, y = rng.standard_normal((50, 3)), rng.standard_normal(50)
    model = AdaptiveTangentRegressor((8,), random_state=0).fit(X, y)
    display = KernelAlignmentDisplay.from_estimator(model, X, y, max_samples=20)
    assert display.kernels["initial kernel"].shape == (20, 20)


def test_display_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        KernelAlignmentDisplay({"label kernel": np.eye(2)}).plot()


def test_mean_over_outputs(rng):
    kernel = rng.standard_normal((6, 6))
    blocks = kernel.reshape(3, 2, 3, 2)
    np.testing.assert_allclose(mean_over_outputs(kernel, 3), (blocks[:, 0, :, 0] + blocks[:, 1, :, 1]) / 2)
    np.testing.assert_array_equal(mean_over_outputs(kernel, 6), kernel)
