"""The modules against their equations, written out plainly."""

import pytest
import torch
from torch import nn

from training.model.backbone import aggregate_masks
from training.model.cbam import CBAM
from training.model.cfm import CFM, cosine_distance
from training.model.config import CoherenceConfig, DecoderConfig, ModelConfig
from training.model.decoder import TaskDecoder
from training.model.dfpn import DFPN
from training.model.heads import Head
from training.model.srm import SRM
from training.tasks import make_task


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_masks_are_summed_into_one_gate() -> None:
    pixels, masks = torch.randn(2, 8, 5, 6), torch.randn(2, 4, 5, 6)
    expected = torch.einsum("bchw,bnhw->bchw", pixels, masks)
    torch.testing.assert_close(aggregate_masks(pixels, masks, "sum_logits"), expected)
    bounded = aggregate_masks(pixels, masks, "mean_sigmoid")
    assert (bounded.abs() <= pixels.abs()).all()


def test_the_product_stays_in_fp32_under_mixed_precision() -> None:
    pixels, masks = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 100, 1, 1), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        aggregated = aggregate_masks(pixels.bfloat16(), masks.bfloat16(), "sum_logits")
    assert aggregated.dtype == torch.float32


def test_decoder_doubles_channels_and_halves_sides() -> None:
    decoder = TaskDecoder(32, DecoderConfig(channels=16, window=4))
    shapes = [tuple(f.shape) for f in decoder(torch.randn(1, 32, 15, 22))]
    assert shapes == [(1, 16, 15, 22), (1, 32, 8, 11), (1, 64, 4, 6)]


def test_decoder_has_no_projection_where_widths_agree() -> None:
    assert isinstance(TaskDecoder(16, DecoderConfig(channels=16)).project, nn.Identity)


def test_dynamic_fusion_starts_as_the_plain_sum_and_can_leave_it() -> None:
    features = [torch.randn(1, 8 * 2**k, 16 // 2**k, 16 // 2**k) for k in range(3)]
    plain, dynamic = DFPN([8, 16, 32], 8, "sum"), DFPN([8, 16, 32], 8, "dynamic")
    dynamic.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain(features), dynamic(features))
    assert dynamic.weights is not None
    with torch.no_grad():
        dynamic.weights[:, 0] += 20  # all weight on the lateral: coarser levels no longer matter
        base = dynamic(features)
        torch.testing.assert_close(base, dynamic([features[0], features[1] + 1, features[2] + 1]))


def test_cbam_gates_by_its_definition() -> None:
    cbam = CBAM(32).eval()
    x = torch.randn(2, 32, 5, 7)
    gate = cbam.channel(x.mean((2, 3))) + cbam.channel(x.amax((2, 3)))
    y = x * gate.sigmoid()[..., None, None]
    pooled = torch.stack([y.amax(1), y.mean(1)], 1)
    torch.testing.assert_close(cbam(x), y * cbam.spatial(pooled).sigmoid())


def test_coherence_fusion_is_the_papers_matrix_product() -> None:
    cfm = CFM(8, 2, CoherenceConfig()).eval()
    main, others = torch.randn(2, 8, 4, 5), [torch.randn(2, 8, 4, 5) for _ in range(2)]
    assert cfm.gates is not None
    gated = [x * gate.conv(x).sigmoid() for x, gate in zip(others, cfm.gates, strict=True)]  # type: ignore[operator]
    mixed = cfm.mix(torch.cat(gated, 1))
    a1, a2, m = cfm.query(mixed).flatten(2), cfm.key(mixed).flatten(2), cfm.main(main).flatten(2)
    affinity = (a1.transpose(1, 2) @ a2).softmax(-1)  # rows: positions of a1
    fused = (affinity @ m.transpose(1, 2)).transpose(1, 2).reshape(2, 8, 4, 5)
    got, cosine = cfm(main, others)
    torch.testing.assert_close(got, cfm.out(fused), rtol=1e-4, atol=1e-5)
    assert cosine is None


def test_keys_and_values_are_made_from_pooled_maps() -> None:
    cfm = CFM(8, 1, CoherenceConfig(kv_stride=2)).eval()
    main, other = torch.randn(2, 8, 6, 10), torch.randn(2, 8, 6, 10)
    assert cfm.gates is not None
    mixed = cfm.mix(cfm.gates[0](other))
    key = cfm.key(nn.functional.avg_pool2d(mixed, 2)).flatten(2)
    value = cfm.main(nn.functional.avg_pool2d(main, 2)).flatten(2)
    affinity = (cfm.query(mixed).flatten(2).transpose(1, 2) @ key).softmax(-1)
    fused = (affinity @ value.transpose(1, 2)).transpose(1, 2).reshape(2, 8, 6, 10)
    torch.testing.assert_close(cfm(main, [other])[0], cfm.out(fused), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 0.0), (-3.0, 2.0)])
def test_cosine_distance_sees_direction_only(factor: float, expected: float) -> None:
    x = torch.randn(2, 8, 4, 4)
    assert cosine_distance(x, factor * x).item() == pytest.approx(expected, abs=1e-5)


def test_residual_and_narrow_mix_are_flags() -> None:
    config = CoherenceConfig(residual=True, mixed_channels=4, shared_gates=True)
    cfm = CFM(8, 3, config).eval()
    assert cfm.gates is None
    assert cfm.mix[0].out_channels == 4
    main, others = torch.randn(1, 8, 4, 4), [torch.randn(1, 8, 4, 4) for _ in range(3)]
    with torch.no_grad():
        for parameter in cfm.out[1].parameters():
            parameter.zero_()
    torch.testing.assert_close(cfm(main, others)[0], main)


def test_refinement_resizes_to_the_stage_and_hands_its_channels_back() -> None:
    pred, back = SRM(8, 32, 16, last=False)(torch.randn(2, 8, 16, 24), torch.randn(2, 32, 4, 6))
    assert pred.shape == (2, 16, 4, 6)
    assert back is not None
    assert back.shape == (2, 32, 4, 6)
    assert SRM(8, 32, 16, last=True)(torch.randn(2, 8, 2, 3), torch.randn(2, 32, 4, 6))[1] is None


def test_depth_heads_are_narrower_and_positive_only_with_softplus() -> None:
    features = 100 * torch.randn(2, 16, 8, 8)
    depth = make_task("depth")
    config = ModelConfig(tasks={"depth": None, "normals": None})
    softplus = config.model_copy(update={"depth_activation": "softplus"})
    paper, soft = Head(16, depth, config), Head(16, depth, softplus)
    final = paper.layers[3]
    assert isinstance(final, nn.Conv2d)
    nn.init.normal_(final.weight, std=20)
    soft.load_state_dict(paper.state_dict())
    for head in (paper, soft):
        assert head.layers[0].out_channels == 8
    assert paper(features).min() < 0 < soft(features).min()


def test_normals_face_the_camera_where_asked() -> None:
    features, normals = torch.randn(2, 16, 8, 8), make_task("normals")
    config = ModelConfig(tasks={"depth": None, "normals": None})
    paper, facing = (
        Head(16, normals, config),
        Head(16, normals, config.model_copy(update={"normals_facing": True})),
    )
    facing.load_state_dict(paper.state_dict())
    free, bound = paper(features), facing(features)
    assert free[:, 2].min() < 0
    torch.testing.assert_close(bound[:, 2], free[:, 2].abs())
    assert torch.equal(bound[:, :2], free[:, :2])
