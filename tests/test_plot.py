"""Pictures: what is drawn, where, in which colour, and what is refused."""

from __future__ import annotations

import doctest
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import skimage.color
from matplotlib.colors import to_rgb

import malis
from malis import plot
from malis.synthetic import synthetic_affinities, synthetic_image

NHOOD = malis.mknhood2d(1)
BLUE, VERMILLION = "#0072B2", "#D55E00"


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")  # those of other tests
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cells():
    image, labels = synthetic_image(0, 64)
    return image[0], labels, synthetic_affinities(labels, NHOOD, 0)


def picture_of(ax):
    """Return what an axes shows as an array of colours."""
    (shown,) = ax.get_images()
    return np.asarray(shown.get_array())


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def calls(cells):
    """Every function of the module with arguments for an image."""
    image, labels, aff = cells
    pred, _ = malis.affgraph_to_seg(aff, NHOOD, threshold=0.8)
    return {
        "affinities": lambda **options: plot.affinities(aff, NHOOD, **options),
        "labels": lambda **options: plot.labels(labels, image=image, **options),
        "deciding_edges": lambda **options: plot.deciding_edges(malis.pairs(aff, labels, NHOOD), NHOOD, **options),
        "rand_curve": lambda **options: plot.rand_curve(malis.rand_curve(aff, labels, NHOOD), **options),
        "errors": lambda **options: plot.errors(labels, pred, image=image, **options),
    }


def volume_calls():
    """Every picture of a section, for a volume of which section 1 alone is not empty."""
    labels = np.zeros((3, 6, 8), int)
    labels[1, 1:5, 1:4], labels[1, 1:5, 5:7] = 1, 2
    nhood = malis.mknhood3d(1)
    aff = malis.seg_to_affgraph(labels, nhood).astype(np.float32)
    counts = malis.pairs(aff, labels, nhood)
    return {
        "affinities": lambda **options: plot.affinities(aff, nhood, **options),
        "labels": lambda **options: plot.labels(labels, **options),
        "deciding_edges": lambda **options: plot.deciding_edges(counts, nhood, **options),
        "errors": lambda **options: plot.errors(labels, np.where(labels == 2, 1, labels), **options),
    }


NAMES = ["affinities", "labels", "deciding_edges", "rand_curve", "errors"]
SECTIONS = ["affinities", "labels", "deciding_edges", "errors"]


@pytest.mark.parametrize("name", NAMES)
def test_draws_into_the_axes_given(name, cells):
    figure, (left, right) = plt.subplots(1, 2)
    assert calls(cells)[name](ax=right) is right
    assert not left.has_data()
    assert right.has_data()
    assert right.get_title()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", NAMES)
def test_makes_a_figure(name, cells, tmp_path):
    ax = calls(cells)[name]()
    assert len(plt.get_fignums()) == 1
    ax.figure.savefig(tmp_path / "picture.png", dpi=50)
    assert matplotlib.image.imread(tmp_path / "picture.png")[..., :3].std() > 0.05


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_of_volumes(name):
    call = volume_calls()[name]
    with pytest.raises(ValueError, match="section must be one of 0 to 2 along z"):
        call(section=3)
    with pytest.raises(ValueError, match="section must be one of 0 to 7 along x"):
        call(section=8, axis="x")
    with pytest.raises(ValueError, match="section must be an integer of at least 0"):
        call(section=-1)
    with pytest.raises(TypeError, match="section must be an integer"):
        call(section=1.5)
    with pytest.raises(ValueError, match="axis must be one of 'z', 'y', 'x'"):
        call(axis="t")
    empty, full = picture_of(call(section=0)), picture_of(call(section=1))
    assert empty.shape == full.shape == (6, 8, 3)
    if name != "deciding_edges":
        assert not np.array_equal(empty, full)
    middle = call()
    np.testing.assert_array_equal(picture_of(middle), full)
    assert middle.get_title().endswith(", z = 1 of 3")
    assert picture_of(call(axis="y")).shape == (3, 8, 3)
    assert call(axis="y").get_title().endswith(", y = 3 of 6")
    assert picture_of(call(axis="x", section=2)).shape == (3, 6, 3)


@pytest.mark.parametrize("name", SECTIONS)
def test_images_have_no_section(name, cells):
    for options in ({"section": 0}, {"axis": "y"}):
        with pytest.raises(ValueError, match="section and axis must be left out"):
            calls(cells)[name](**options)


def test_a_cut_shows_what_the_array_holds(rng):
    seg = rng.integers(1, 1000, (4, 5, 6))
    for axis, shown in (("z", seg[1]), ("y", seg[:, 1]), ("x", seg[:, :, 1])):
        np.testing.assert_allclose(picture_of(plot.labels(seg, axis=axis, section=1)), plot.label_colours(shown))


@pytest.mark.parametrize("name", SECTIONS)
def test_scale_bar_and_proportions(name):
    ax = volume_calls()[name](axis="y", voxel_size=(40, 5, 10), unit="nm")
    assert ax.get_aspect() == 4
    (bar,) = [patch for patch in ax.patches if patch.get_gid() == "scale"]
    assert bar.get_width() == 2  # 20 nm: the largest round length of at most a third of 8 voxels of 10 nm
    assert [text.get_text() for text in ax.texts] == ["20 nm"]
    assert not volume_calls()[name]().texts
    for bad in ((1, 2), (1, 2, 0), (1, 2, -1)):
        with pytest.raises(ValueError, match="voxel_size must hold 3 sizes above 0"):
            volume_calls()[name](voxel_size=bad)


def test_lines_cannot_be_drawn():
    with pytest.raises(ValueError, match="seg must have two or three spatial axes"):
        plot.labels([1, 2, 2])


# --------------------------------------------------------------------------------------------------------- affinities


def test_affinities_by_hand():
    aff = np.ones((2, 2, 3))
    aff[0, 1, 0] = 0  # the edge upwards is cut
    aff[1, 1, 1] = 0  # the edge to the left
    aff[:, 1, 2] = 0  # both
    aff[0, 0], aff[1, :, 0] = 0, 0  # these edges leave the image
    ax = plot.affinities(aff, NHOOD)
    picture = picture_of(ax)
    np.testing.assert_allclose(picture[0], 1)
    np.testing.assert_allclose(picture[1, 0], to_rgb(BLUE))
    np.testing.assert_allclose(picture[1, 1], to_rgb(VERMILLION))
    np.testing.assert_allclose(picture[1, 2], np.multiply(to_rgb(BLUE), to_rgb(VERMILLION)))
    assert picture[1, 2].max() < 0.25  # dark
    assert legend_of(ax) == ["cut: (-1, 0)", "cut: (0, -1)"]


def test_one_offset_and_many():
    one = plot.affinities(np.full((1, 3, 3), 0.25), [[-1, 0]])
    np.testing.assert_allclose(picture_of(one)[1], 0.25)
    many = plot.affinities(np.ones((5, 3, 3)), [[-1, 0], [0, -1], [-1, -1], [-3, 0], [0, 2]])
    assert legend_of(many) == ["cut: (-1, 0)", "cut: (0, -1)", "cut: (-1, -1)"]


@pytest.mark.parametrize("aff", [np.full((2, 3, 3), 1.5), np.full((2, 3, 3), -0.5), np.full((2, 3, 3), 2)])
def test_affinities_are_between_0_and_1(aff):
    with pytest.raises(ValueError, match=r"aff must hold affinities between 0 and 1.*sigmoid"):
        plot.affinities(aff, NHOOD)


def test_affinities_over_an_image():
    aff, image = np.ones((2, 3, 3)), np.arange(9.0).reshape(3, 3)
    aff[0, 2, 2] = aff[1, 1, 1] = 0
    shown = picture_of(plot.affinities(aff, NHOOD, image=image))
    grey = picture_of(plot.labels(np.zeros((3, 3), int), image=image))
    np.testing.assert_allclose(shown[2, 2], matplotlib.colors.to_rgb("#0072B2"))
    np.testing.assert_allclose(shown[1, 1], matplotlib.colors.to_rgb("#D55E00"))
    rest = np.ones((3, 3), bool)
    rest[2, 2] = rest[1, 1] = False
    np.testing.assert_allclose(shown[rest], grey[rest])


def test_bytes_are_affinities():
    coarse = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 15
    np.testing.assert_allclose(
        picture_of(plot.affinities(coarse, NHOOD)), picture_of(plot.affinities(coarse / 255, NHOOD)), atol=1e-6
    )


def test_nan_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1, got values from nan"):
        plot.affinities(np.full((2, 3, 3), np.nan), NHOOD)


# ------------------------------------------------------------------------------------------------------------- labels


def test_a_label_has_the_same_colour_everywhere():
    left = plot.label_colours(np.array([[0, 1, 2], [3, 2, 0]]))
    assert left.shape == (2, 3, 3)
    assert (left >= 0).all()
    assert (left <= 1).all()
    np.testing.assert_array_equal(left[0, 0], 0)
    np.testing.assert_array_equal(left[0, 2], left[1, 1])
    for dtype in (np.uint8, np.int64, np.uint64, np.float64):
        np.testing.assert_array_equal(plot.label_colours(np.array([2], dtype))[0], left[0, 2])


def test_colours_differ():
    def distances(seg):
        colours = plot.label_colours(seg)
        between = np.abs(colours[:, None] - colours[None]).max(axis=-1)
        return between[~np.eye(len(seg), dtype=bool)]

    assert distances(np.arange(1, 51)).min() > 0.03
    # Consecutive labels, which lie beside one another more often than others.
    colours = plot.label_colours(np.arange(1, 1000))
    assert np.abs(np.diff(colours, axis=0)).max(axis=-1).min() > 0.25
    # Labels of 64 bits that float64 cannot tell apart.
    huge = np.uint64(2**63) + np.arange(50, dtype=np.uint64)
    assert distances(huge).min() > 0.03


def test_neighbours_never_look_alike(rng):
    """Every pair of labels that touch, or nearly touch, differs by 25 in CIELAB."""
    points = rng.integers(0, 200, (150, 2))
    grid = np.stack(np.meshgrid(np.arange(200), np.arange(200), indexing="ij"), axis=-1)
    cells = np.argmin(((grid[:, :, None] - points) ** 2).sum(axis=-1), axis=-1)
    for labels in (cells + 1, 1 + cells * 89, rng.permutation(10**6)[cells] + 1):
        gaps = labels.copy()
        gaps[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0  # with background of one pixel between
        for seg in (labels, gaps):
            lab = skimage.color.rgb2lab(plot.label_colours(seg))
            for axis in (0, 1):
                for gap in (1, 2):
                    moved = [np.moveaxis(a, axis, 0) for a in (seg, lab)]
                    before, after = (a[:-gap] for a in moved), (a[gap:] for a in moved)
                    (one, one_lab), (other, other_lab) = before, after
                    touch = (one != other) & (one > 0) & (other > 0)
                    assert np.linalg.norm(one_lab - other_lab, axis=-1)[touch].min(initial=100) > 24.5


def test_labels_over_an_image(cells):
    image, labels, _ = cells
    grey = picture_of(plot.labels(np.zeros_like(labels), image=image))
    assert (grey[..., 0] == grey[..., 1]).all()
    over = picture_of(plot.labels(labels, image=image, alpha=0.5))
    np.testing.assert_allclose(over[labels == 0], grey[labels == 0])
    middle = np.zeros_like(labels, bool)
    middle[1:-1, 1:-1] = (
        (labels[1:-1, 1:-1] == labels[2:, 1:-1])
        & (labels[1:-1, 1:-1] == labels[:-2, 1:-1])
        & (labels[1:-1, 1:-1] == labels[1:-1, 2:])
        & (labels[1:-1, 1:-1] == labels[1:-1, :-2])
        & (labels[1:-1, 1:-1] > 0)
    )
    assert middle.sum() > 500
    np.testing.assert_allclose(over[middle], (grey + plot.label_colours(labels))[middle] / 2)
    assert plot.labels(labels).get_title() == f"{labels.max()} objects"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, "alpha must lie between 0 and 1, got 1.5"),
        ({"alpha": "much"}, TypeError, "alpha"),
        ({"image": np.zeros((2, 3))}, ValueError, r"image must have shape \(2, 2\)"),
        ({"image": [["a", "b"], ["c", "d"]]}, TypeError, "image must hold grey values"),
        ({"image": np.full((2, 2), np.nan)}, ValueError, "image must hold finite grey values"),
    ],
)
def test_bad_options_of_labels(options, error, message):
    with pytest.raises(error, match=message):
        plot.labels([[1, 2], [0, 1]], **options)


# ----------------------------------------------------------------------------------------------------- deciding edges


def test_deciding_edges_by_hand():
    # 2 + 2 voxels in a row: each object is joined by one edge, the pair of objects by the one between.
    seg = [[1, 1, 2, 2]]
    aff = np.zeros((2, 1, 4))
    aff[1, 0, 1:] = [0.9, 0.6, 0.8]
    ax = plot.deciding_edges(malis.pairs(aff, seg, NHOOD), NHOOD)
    positive, negative = ax.collections[1], ax.collections[3]
    np.testing.assert_allclose(positive.get_offsets(), [[0.5, 0], [2.5, 0]])
    np.testing.assert_allclose(negative.get_offsets(), [[1.5, 0]])
    np.testing.assert_allclose(positive.get_facecolor()[0][:3], to_rgb(BLUE))
    np.testing.assert_allclose(negative.get_facecolor()[0][:3], to_rgb(VERMILLION))
    assert legend_of(ax) == [
        "positive: 2 edges decide 100 % of 2 pairs",
        "negative: 1 edges decide 100 % of 4 pairs",
    ]


def test_edges_with_most_pairs_come_first(cells):
    _, labels, aff = cells
    counts = malis.pairs(aff, labels, NHOOD)
    ax = plot.deciding_edges(counts, NHOOD, most=7)
    for kind, dots in ((counts.pos, ax.collections[1]), (counts.neg, ax.collections[3])):
        areas = dots.get_sizes()
        number = np.sort(kind, axis=None)[::-1][:7]
        np.testing.assert_allclose((areas - 12) / 180, number / number[0])
        for x, y in np.asarray(dots.get_offsets()):
            # The dot of an edge upwards lies between two rows, that of an edge to the left between two columns.
            channel, voxel = (0, (int(y + 0.5), int(x))) if y % 1 else (1, (int(y), int(x + 0.5)))
            assert kind[channel][voxel] >= number[-1]
    share = 100 * np.sort(counts.pos, axis=None)[-7:].sum() / counts.pos.sum()
    assert f"positive: 7 edges decide {share:.0f} % of" in legend_of(ax)[0]


def test_long_edges_are_lines_and_edges_between_sections_are_left_out():
    labels = np.ones((2, 3, 6), int)
    nhood = [[-1, 0, 0], [0, 0, -4], [0, -1, 0]]
    pos = np.zeros((3, 2, 3, 6), np.int64)
    pos[0, 1, 1, 1], pos[1, 1, 2, 5], pos[2, 1, 1, 3] = 50, 20, 10
    counts = malis.PairCounts(pos, np.zeros_like(pos))
    ax = plot.deciding_edges(counts, nhood, image=labels, section=1)
    lines, dots = ax.collections[:2]
    np.testing.assert_allclose(dots.get_offsets(), [[3, 2], [3, 0.5]])
    assert [path.vertices.tolist() for path in lines.get_paths()] == [[[5, 2], [1, 2]]]
    assert legend_of(ax)[0] == "positive: 2 edges decide 100 % of 30 pairs"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"counts": np.zeros((2, 3, 4))}, TypeError, "counts must be what malis.pairs returns, got ndarray"),
        ({"nhood": [[-1, 0]]}, ValueError, "one channel for each of the 1 offsets"),
        ({"nhood": [[-1, 0, 0], [0, -1, 0]]}, ValueError, "3 spatial axes"),
        ({"most": 0}, ValueError, "most must be an integer of at least 1"),
        ({"image": np.zeros((4, 3))}, ValueError, "image must have shape"),
    ],
)
def test_bad_input_of_deciding_edges(change, error, message):
    zeros = np.zeros((2, 3, 4), np.int64)
    arguments = {"counts": malis.PairCounts(zeros, zeros), "nhood": NHOOD, **change}
    with pytest.raises(error, match=message):
        plot.deciding_edges(**arguments)


# --------------------------------------------------------------------------------------------------------- Rand curve


def value_at(line, x):
    """Return the height of a line that runs in steps, at x."""
    xs, ys = line.get_data()
    assert line.get_drawstyle() == "steps-post"
    return ys[np.flatnonzero(xs >= x)[-1]]


def test_rand_curve_shows_the_segmentation_at_every_threshold():
    seg, aff = [1, 1, 1, 2, 2], [[0, 0.9, 0.6, 0.2, 0.8]]
    curve = malis.rand_curve(aff, seg, [[-1]])
    ax = plot.rand_curve(curve)
    precision, recall, f_score, best, point = ax.get_lines()
    for level in (0.2, 0.3, 0.6, 0.7, 0.8, 0.85, 0.9):
        at = malis.rand_curve(np.where(np.array(aff) >= level, 1, -1), seg, [[-1]])
        assert value_at(precision, level) == pytest.approx(at.precision[0])
        assert value_at(recall, level) == pytest.approx(at.recall[0])
        assert value_at(f_score, level) == pytest.approx(at.f_score[0])
    assert best.get_xdata()[0] == 0.6
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.6, 1)
    assert legend_of(ax)[-1] == "threshold 0.6: F-score 1.000"


def test_threshold_of_the_caller():
    curve = malis.rand_curve([[0, 0.9, 0.6, 0.2, 0.8]], [1, 1, 1, 2, 2], [[-1]])
    for threshold, score in ((0.7, curve.f_score[1]), (0.8, curve.f_score[1]), (0.1, curve.f_score[3])):
        ax = plot.rand_curve(curve, threshold=threshold)
        assert legend_of(ax)[-1] == f"threshold {threshold}: F-score {score:.3f}"
        assert legend_of(ax)[-2] == "best F-score 1.000 at 0.6"  # why the dot is not on the peak
        assert ax.get_lines()[-1].get_ydata()[0] == score
    chosen = legend_of(plot.rand_curve(curve, threshold=0.7, chosen_by="object score"))[-1]
    assert chosen == f"threshold 0.7, best by object score: F-score {curve.f_score[1]:.3f}"
    assert legend_of(plot.rand_curve(curve, threshold=0.95))[-1] == "threshold 0.95, above every affinity"


def test_long_curves_keep_what_matters(rng):
    labels = np.repeat(np.arange(1, 101), 400).reshape(200, 200)
    aff = 1 - 0.5 * rng.random((2, 200, 200)) ** 4
    curve = malis.rand_curve(aff, labels, NHOOD)
    assert len(curve.thresholds) > 50_000
    ax = plot.rand_curve(curve)
    xs, ys = ax.get_lines()[2].get_data()
    assert len(xs) < 5000
    assert xs[0] == curve.thresholds[0]
    assert xs[-1] == curve.thresholds[-1]
    assert ys.max() == curve.f_score.max()
    gap = np.interp(np.linspace(xs[-1], xs[0], 500), xs[::-1], ys[::-1])
    exact = np.interp(np.linspace(xs[-1], xs[0], 500), curve.thresholds[::-1], curve.f_score[::-1])
    np.testing.assert_allclose(gap, exact, atol=0.02)


def test_infinite_affinities_are_not_drawn():
    curve = malis.rand_curve([[0, np.inf, 2.0, -np.inf]], [1, 1, 1, 2], [[-1]])
    ax = plot.rand_curve(curve, threshold=1.0)
    assert np.isfinite(ax.get_lines()[0].get_xdata()).all()
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("curve", "options", "error", "message"),
    [
        ([0.5], {}, TypeError, "curve must be what malis.rand_curve returns, got list"),
        (malis.rand_curve([[0.0]], [1], [[-1]]), {}, ValueError, "curve must have a finite threshold"),
        (malis.rand_curve([[0, 0.5]], [1, 1], [[-1]]), {"threshold": "auto"}, TypeError, "threshold"),
        (malis.rand_curve([[0, 0.5]], [1, 1], [[-1]]), {"threshold": np.nan}, ValueError, "threshold"),
    ],
)
def test_bad_input_of_the_curve(curve, options, error, message):
    with pytest.raises(error, match=message):
        plot.rand_curve(curve, **options)


# ------------------------------------------------------------------------------------------------------------- errors


def test_errors_by_hand():
    true = np.zeros((6, 12), int)
    true[1:5, 0:4], true[1:5, 5:9], true[1:3, 10:12] = 1, 2, 3
    pred = np.zeros_like(true)
    pred[1:5, 0:3], pred[1:5, 3], pred[1:5, 5:9], pred[1:3, 10:12] = 4, 5, 6, 6
    ax = plot.errors(true, pred)
    picture = picture_of(ax)
    assert legend_of(ax) == [f"split: {400 / 36:.1f} %", f"merged: {400 / 36:.1f} %"]
    split, merged, right = picture[2, 3], picture[1, 10], picture[2, 1]
    assert split[2] > split[0] + 0.2  # blue
    assert merged[0] > merged[2] + 0.2  # red
    assert right[0] == right[1] == right[2] > 0.5
    everything = plot.errors(true, np.ones_like(true))
    assert [text.split(":")[0] for text in legend_of(everything)] == ["merged", "spurious"]


def test_no_errors():
    ax = plot.errors([[1, 1], [0, 2]], [[7, 7], [0, 5]])
    assert ax.get_title() == "no errors"
    assert ax.get_legend() is None


def test_errors_are_decided_in_the_volume():
    # In section 0 alone object 1 is whole; in the volume label 8 covers most of it, and 7 is split off.
    true = np.ones((2, 3, 3), int)
    pred = np.full((2, 3, 3), 8)
    pred[0, :2] = 7
    assert legend_of(plot.errors(true, pred, section=0)) == [f"split: {600 / 9:.1f} %"]
    assert plot.errors(true, pred, section=1).get_legend() is None


def test_comparison():
    true = np.kron([[1, 1, 2], [1, 1, 2]], np.ones((4, 4), int))
    merged, split = np.ones_like(true), true.copy()
    split[:4][split[:4] == 1] = 3
    figure = plot.comparison(true, {"a": merged, "b": split}, voxel_size=(4, 4), image=true)
    (_, a, b), (_, merges, splits) = np.reshape(figure.axes, (2, 3))
    assert [ax.get_title() for ax in (a, b)] == ["a: 1 object", "b: 3 objects"]
    assert legend_of(merges) == ["merged: 33.3 %"]
    assert legend_of(splits) == ["split: 33.3 %"]
    with pytest.raises(ValueError, match=r"c must have the shape of seg_true, \(8, 12\), got shape \(2, 2\)"):
        plot.comparison(true, {"c": np.ones((2, 2), int)})
    with pytest.raises(ValueError, match="at least one segmentation"):
        plot.comparison(true, {})


# ----------------------------------------------------------------------------------------------------------- package

WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None  # "import matplotlib" raises ImportError
import malis
try:
    malis.plot
except ImportError as error:
    assert "pip install matplotlib" in str(error), error
else:
    raise AssertionError("no ImportError")
"""


def test_without_matplotlib():
    result = subprocess.run([sys.executable, "-c", WITHOUT_MATPLOTLIB], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_examples_of_the_documentation():
    failed, tried = doctest.testmod(plot)
    assert tried >= 15
    assert failed == 0
