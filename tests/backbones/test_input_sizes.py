import pytest

from se_nas.backbones.input_sizes import smallest_input
from se_nas.errors import BackboneError


@pytest.mark.parametrize(
    ("backbone", "side", "smallest"), [("resnet18", 32, 32), ("resnet18", 50, 50), ("inception_v3", 32, 96)]
)
def test_smallest_input(backbone, side, smallest):
    # Inception v3 has unpadded convolutions: 75 pixels are its minimum (its authors' note), 96 the next tried.
    assert smallest_input(backbone, side) == smallest


def test_fixed_input_is_found():
    assert smallest_input("vit_tiny_patch16_224", 32) == 224


def test_none_that_it_takes():
    with pytest.raises(BackboneError, match="vit_tiny_patch16_224 accepts no square input of 300"):
        smallest_input("vit_tiny_patch16_224", 300)
