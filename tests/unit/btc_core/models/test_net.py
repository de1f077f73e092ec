"""The net is fitted by its own gradients, gives the same numbers again, and finds skill where there is some."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, RELEASES
from btc_core.models import net_fitting
from btc_core.models.net import CLIP, INPUTS, SLOPE, Net, net_inputs
from btc_core.models.recipe import RECIPE
from btc_core.models.scores import qlike

SMALL = msgspec.structs.replace(RECIPE.volatility.net, hidden=(16, 8), seeds=2, epochs=8, batch_rows=128, rate=5e-3)
ROWS = 6_000


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    """Inputs, ln of HARX, and labels whose level one column of HARX's rows tells: gamma noise around exp(0.5 x)."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(-14.0, 1.0, (ROWS, len(MODEL_FEATURES)))
    columns = rng.normal(size=(ROWS, len(COLUMNS))).astype(np.float32)
    log_harx = rng.normal(-14.0, 1.0, ROWS)
    level = np.exp(log_harx + 0.5 * columns[:, COLUMNS.index("profile_15d")])
    return matrix, columns, log_harx, level * rng.gamma(2.5, 0.4, ROWS)


def fitted(matrix: np.ndarray, columns: np.ndarray, log_harx: np.ndarray, labels: np.ndarray) -> Net:
    later = np.exp(log_harx)[:, np.newaxis] * np.random.default_rng(7).gamma(5.0, 0.2, (len(labels), 3))
    return net_fitting.fit_net(net_inputs(matrix, columns, log_harx), log_harx, labels, later, SMALL)


@pytest.fixture(scope="module")
def net(data: tuple[np.ndarray, ...]) -> Net:
    return fitted(*data)


def test_the_net_finds_what_harx_does_not_see(data: tuple[np.ndarray, ...], net: Net) -> None:
    matrix, columns, log_harx, labels = data
    forecast = np.exp(log_harx + net.corrections(matrix, columns, log_harx))
    assert qlike(labels, forecast) < qlike(labels, np.exp(log_harx)) - 0.05


def test_shuffled_labels_leave_no_skill(data: tuple[np.ndarray, ...]) -> None:
    matrix, columns, log_harx, labels = data
    ratio = labels / np.exp(log_harx)
    order = np.random.default_rng(5).permutation(ROWS)
    half = ROWS // 2
    shuffled = np.exp(log_harx) * ratio[order]
    net = fitted(matrix[:half], columns[:half], log_harx[:half], shuffled[:half])
    forecast = np.exp(log_harx + net.corrections(matrix, columns, log_harx))[half:]
    offset = np.mean(shuffled[half:] / forecast)
    best = qlike(shuffled[half:], np.exp(log_harx[half:]) * ratio.mean())
    assert qlike(shuffled[half:], forecast * offset) > best - 0.005


def test_the_same_seed_gives_the_same_net(data: tuple[np.ndarray, ...], net: Net) -> None:
    again = fitted(*data)
    for ours, theirs in zip((*net.weights, *net.biases), (*again.weights, *again.biases), strict=True):
        assert np.array_equal(ours, theirs)
    assert not np.array_equal(net.weights[0][0], net.weights[0][1]), "its seeds differ"


def test_compiled_code_computes_what_numpy_does(data: tuple[np.ndarray, ...], net: Net) -> None:
    matrix, columns, log_harx, _labels = (each[:200] for each in data)
    raw = net_inputs(matrix, columns, log_harx)
    inputs = np.clip((raw - net.centre) / net.scale, -CLIP, CLIP)
    outputs = []
    for seed in range(SMALL.seeds):
        values = inputs
        for layer in range(3):
            values = values @ net.weights[layer][seed] + net.biases[layer][seed]
            if layer < 2:
                values = np.where(values < 0.0, SLOPE * values, values)
        outputs.append(values[:, 0])
    assert np.allclose(net.corrections(matrix, columns, log_harx), np.mean(outputs, axis=0), atol=1e-5)


def test_one_row_has_the_numbers_of_a_batch_to_the_last_bit(data: tuple[np.ndarray, ...], net: Net) -> None:
    matrix, columns, log_harx, _labels = (each[:50] for each in data)
    one = [net.corrections(matrix[k : k + 1], columns[k : k + 1], log_harx[k : k + 1]) for k in range(50)]
    assert np.array_equal(np.concatenate(one), net.corrections(matrix, columns, log_harx))


def test_a_missing_input_counts_as_its_mean_and_a_missing_harx_gives_nan(
    data: tuple[np.ndarray, ...], net: Net
) -> None:
    matrix, columns, log_harx, _labels = (each[:2].copy() for each in data)
    columns[0, COLUMNS.index("volume_5m")] = np.nan
    log_harx[1] = np.nan
    found = net.corrections(matrix, columns, log_harx)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
    columns[0, COLUMNS.index("volume_5m")] = net.centre[INPUTS.index("volume_5m")]
    assert np.allclose(net.corrections(matrix, columns, log_harx)[0], found[0], atol=1e-5)


def test_gradients_are_those_of_the_loss() -> None:
    rng = np.random.default_rng(1)
    inputs, ratio = rng.normal(size=(7, 4)), rng.gamma(2.0, 0.5, (7, 1))
    params = [rng.normal(size=size) for size in ((4, 6), (6, 3), (3, 1), (6,), (3,), (1,))]

    def loss() -> float:
        values = inputs
        for layer in range(3):
            values = values @ params[layer] + params[3 + layer]
            if layer < 2:
                values = np.where(values < 0.0, np.float32(SLOPE) * values, values)
        return float((ratio * np.exp(-values) + values).sum() / len(inputs))

    found = net_fitting._gradients(params, 3, inputs, ratio, 1e9)  # type: ignore[arg-type]
    for param, gradient in zip(params, found, strict=True):
        place = tuple(rng.integers(size) for size in param.shape)
        param[place] += 1e-5
        above = loss()
        param[place] -= 2e-5
        below = loss()
        param[place] += 1e-5
        assert gradient[place] == pytest.approx((above - below) / 2e-5, rel=1e-3, abs=1e-5)


def test_inputs_of_releases_are_not_centred_and_a_constant_or_unknown_input_has_no_effect(
    data: tuple[np.ndarray, ...],
) -> None:
    matrix, columns, log_harx, _labels = data
    raw = net_inputs(matrix, columns, log_harx)
    raw[:, 0], raw[:, 1] = 1.0, np.nan
    centre, scale = net_fitting.standardisation(raw, SMALL)
    rare = np.isin(INPUTS, RELEASES)
    assert (centre[rare] == 0.0).all()
    assert (scale[rare] == SMALL.release_scale).all()
    assert np.isinf(scale[:2]).all()


def test_a_net_survives_its_bytes_and_other_shapes_are_refused(net: Net) -> None:
    again = Net.from_bytes(net.to_bytes())
    assert again.to_bytes() == net.to_bytes()
    narrower = msgspec.structs.replace(net, centre=net.centre[:-1])
    with pytest.raises(ValueError, match="shapes"):
        Net.from_bytes(narrower.to_bytes())
