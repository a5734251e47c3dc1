"""Sizes of images as people give them."""

import pytest

import se_nas
from se_nas.cost import LatencySettings
from se_nas.errors import ConfigError, SeNasError
from se_nas.sites import image_size


@pytest.mark.parametrize("given", [64, (3, 64, 64), [3, 64, 64]])
def test_an_int_is_the_side_of_square_images(given):
    assert image_size(given) == (3, 64, 64)
    assert LatencySettings(input_size=given).input_size == (3, 64, 64)
    arch = se_nas.Architecture.uniform("test_resnet", reduction=16)
    assert se_nas.measure_cost(arch, input_size=given) == se_nas.measure_cost(arch, input_size=(3, 64, 64))
    sites = se_nas.find_sites("test_resnet", input_size=given)
    assert [site.resolution for site in sites] == [(16, 16), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("given", [None, True, "64", 64.0, 0, (64, 64), (3, 64, -1), (3, True, 64)])
def test_anything_else_is_refused_with_the_name_of_the_argument(given):
    with pytest.raises(ConfigError, match="input_size is"):
        image_size(given)
    with pytest.raises(ConfigError, match="input_size is"):
        LatencySettings(input_size=given)
    arch = se_nas.Architecture.plain("test_resnet")
    with pytest.raises(SeNasError, match="input_size is"):
        se_nas.measure_cost(arch, input_size=given)
