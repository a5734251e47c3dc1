"""The conformance suite over two small models of every family, hybrids too.

The smallest that timm has, by parameters; families that are large throughout run the checks on the meta device.
"""

from __future__ import annotations

import pytest
import timm

from se_nas.testing import CHECKS, META_CHECKS, examine

REAL = [
    *(
        "test_byobnet",
        "mobileone_s1",
        "test_convnext",
        "test_convnext3",
        "cs3darknet_focus_s",
        "cs3darknet_s",
    ),
    *("cspnext_tiny", "cspnext_s", "dla46x_c", "dla46_c", "test_efficientnet", "test_efficientnet_gn"),
    *("fasternet_t0", "fastvit_t8", "ghostnet_050", "hardcorenas_a", "hgnetv2_b0", "inception_next_atto"),
    *("lcnetv2_small", "test_mambaout", "mobilenetv3_small_050", "lcnet_035", "mobilevitv2_050"),
    *("mobilevitv2_075", "test_nfnet", "nf_regnet_b0", "regnetx_002", "regnety_002", "repghostnet_050"),
    *("repghostnet_058", "repvit_m0_9", "test_resnet", "resnet10t", "rexnet_100", "rexnetr_100"),
    *("starnet_s050", "starnet_s100", "swiftformer_xs", "ese_vovnet19b_slim_dw", "ese_vovnet19b_slim"),
    *("edgenext_xx_small", "efficientvit_m0", "mobilevit_xxs", "test_maxvit", "coat_lite_tiny", "shvit_s1"),
]
META = [
    *("convmixer_768_32", "convmixer_1024_20_ks9_p14", "densenet121", "densenetblur121d", "dpn48b", "dpn68"),
    *(
        "fasternet_t1",
        "fastvit_t12",
        "focalnet_tiny_srf",
        "focalnet_tiny_lrf",
        "ghostnetv3_050",
        "hardcorenas_b",
    ),
    *("hgnetv2_b1", "hrnet_w18_small", "hrnet_w18_small_v2", "inception_next_tiny", "inception_resnet_v2"),
    *("inception_v3", "inception_v4", "lcnetv2_base", "lowformer_e1", "lowformer_e2", "mambaout_femto"),
    *("convformer_s18", "caformer_s18", "nasnetalarge", "pnasnet5large", "rdnet_tiny", "rdnet_small"),
    *(
        "repvit_m1",
        "res2next50",
        "res2net50_14w_8s",
        "resnest14d",
        "resnest26d",
        "resnetv2_18",
        "resnetv2_18d",
    ),
    *(
        "selecsls42",
        "selecsls60",
        "legacy_seresnet18",
        "legacy_seresnext26_32x4d",
        "skresnet18",
        "skresnet34",
    ),
    *("swiftformer_s", "tresnet_m", "tresnet_l", "vgg11", "vgg11_bn", "legacy_xception", "xception41"),
    *("eca_botnext26ts_256", "eca_halonext26ts", "gcresnext26ts", "bat_resnext26ts", "coat_tiny"),
    *("cpubone_nano", "cpubone_t0", "crossvit_9_dagger_240", "csatv2", "csatv2_21m", "davit_tiny"),
    *("edgenext_x_small", "efficientformerv2_s0", "efficientformerv2_s1", "gc_efficientnetv2_rw_t"),
    *(
        "efficientvim_m1",
        "efficientvit_b0",
        "efficientvit_b1",
        "efficientvit_m1",
        "fastvit_mci0",
        "gcvit_xxtiny",
    ),
    *("iformer_t", "iformer_s", "lowformer_b0", "maxvit_pico_rw_256", "mobilenetv4_hybrid_medium_075"),
    *(
        "mobilenetv5_base",
        "mobilevit_xs",
        "mvitv2_tiny",
        "nextvit_small",
        "pvt_v2_b0",
        "pvt_v2_b1",
        "shvit_s2",
    ),
    *("tiny_vit_5m_224", "twins_svt_small", "visformer_tiny", "vit_small_r26_s32_224", "vitamin_small_224"),
    *("xcit_nano_12_p8_224", "xcit_nano_12_p16_224"),
]
FIXED_SIZE = ("swiftformer", "coat", "efficientvit_m", "shvit", "mobilevit", "edgenext", "test_maxvit")


@pytest.mark.parametrize("name", REAL)
def test_with_numbers(name: str) -> None:
    size = None if name.startswith(FIXED_SIZE) else (3, 64, 64)
    failed = {
        check: reason for check, reason in examine(name, checks=CHECKS, input_size=size).items() if reason
    }
    assert not failed


@pytest.mark.parametrize("name", META)
def test_on_the_meta_device(name: str) -> None:
    failed = {check: reason for check, reason in examine(name, checks=META_CHECKS).items() if reason}
    assert not failed


def test_the_names_are_timms() -> None:
    assert set(REAL + META) <= set(timm.list_models())
    assert len({timm.model_entrypoint(name).__module__ for name in REAL + META}) > 55
