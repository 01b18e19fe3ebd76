"""The modules against their equations, written out plainly."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operators import OperatorCount
from tests.training.tiny import tiny_model
from training.model.backbone import aggregate_masks
from training.model.cbam import CBAM
from training.model.cfm import CFM, cosine_distance
from training.model.config import CoherenceConfig, DecoderConfig, ModelConfig
from training.model.decoder import TaskDecoders
from training.model.dfpn import DFPN
from training.model.exporting import as_exported
from training.model.heads import Heads
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


def test_decoders_double_channels_and_halve_sides() -> None:
    decoder = TaskDecoders(3, 32, DecoderConfig(channels=16, window=4))
    shapes = [tuple(f.shape) for f in decoder(torch.randn(1, 32, 15, 22))]
    assert shapes == [(1, 3 * 16, 15, 22), (1, 3 * 32, 8, 11), (1, 3 * 64, 4, 6)]


def test_decoders_have_no_projection_where_widths_agree() -> None:
    decoder = TaskDecoders(2, 16, DecoderConfig(channels=16))
    assert decoder.project is None
    assert decoder(torch.randn(1, 16, 7, 7))[0].shape == (1, 2 * 16, 7, 7)


def test_dynamic_fusion_starts_as_the_plain_sum_and_can_leave_it() -> None:
    features = [torch.randn(1, 3 * 8 * 2**k, 16 // 2**k, 16 // 2**k) for k in range(3)]
    plain, dynamic = DFPN(3, [8, 16, 32], 8, "sum"), DFPN(3, [8, 16, 32], 8, "dynamic")
    dynamic.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain(features), dynamic(features))
    assert dynamic.weights is not None
    with torch.no_grad():
        dynamic.weights[1, :, 0] += 20  # all weight of task 1 on the lateral: coarser levels no longer matter
        base = dynamic(features)
        changed = dynamic([features[0], features[1] + 1, features[2] + 1])
    torch.testing.assert_close(base[:, 8:16], changed[:, 8:16])
    assert not torch.allclose(base[:, :8], changed[:, :8])


def test_cbam_gates_by_its_definition() -> None:
    cbam = CBAM(1, 32).eval()
    x = torch.randn(2, 32, 5, 7)
    gate = cbam.channel(x.mean((2, 3), keepdim=True)) + cbam.channel(x.amax((2, 3), keepdim=True))
    y = x * gate.sigmoid()
    pooled = torch.stack([y.amax(1), y.mean(1)], 1)
    torch.testing.assert_close(cbam(x), y * cbam.spatial(pooled).sigmoid())


@pytest.mark.parametrize("tasks", [1, 5, 9])
def test_cbam_is_the_same_as_an_exported_graph_has_it(tasks: int) -> None:
    """Of 9 tasks the 18 channels take two vectors; one gate's norm of each task is that of no other."""
    cbam = CBAM(tasks, 16).double().eval()
    norm = cbam.spatial[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        nn.init.uniform_(values, 0.5, 2)
    x = torch.randn(2, tasks * 16, 11, 9, dtype=torch.float64)
    with torch.no_grad():
        expected = cbam(x)
        with as_exported(), OperatorCount() as counted:
            found = cbam(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert counted.names["aten::convolution"] == 4


def test_the_spatial_gates_batch_norm_is_slow() -> None:
    cbam = CBAM(2, 32).train()
    norm = cbam.spatial[1]
    assert isinstance(norm, nn.BatchNorm2d)
    pooled = []
    cbam.spatial[0].register_forward_hook(lambda *call: pooled.append(call[-1]))
    cbam(torch.randn(2, 64, 5, 7))
    torch.testing.assert_close(norm.running_mean, 0.01 * pooled[0].mean((0, 2, 3)))


def test_coherence_fusion_is_the_papers_matrix_product() -> None:
    cfm = CFM(3, 8, CoherenceConfig()).eval()
    x = torch.randn(2, 3 * 8, 4, 5)
    assert cfm.gate.bias is not None
    assert cfm.mix.bias is not None
    weight, bias = cfm.gate.weight.view(3, 2, 8, 8), cfm.gate.bias.view(3, 2, 8)
    sources = x.view(2, 3, 8, 4, 5)
    mixed = []
    for task in range(3):
        others = [other for other in range(3) if other != task]
        gated = [
            sources[:, other]
            * nn.functional.conv2d(
                sources[:, other], weight[task, slot, ..., None, None], bias[task, slot]
            ).sigmoid()
            for slot, other in enumerate(others)
        ]
        rows = slice(task * 16, (task + 1) * 16)
        mixed.append(
            nn.functional.conv2d(torch.cat(gated, 1), cfm.mix.weight[rows], cfm.mix.bias[rows]).relu()
        )
    joined = torch.cat(mixed, 1)
    parts = (cfm.query(joined), cfm.key(joined), cfm.main(x))
    a1, a2, m = (part.view(2, 3, -1, 20) for part in parts)
    affinity = (a1.transpose(-1, -2) @ a2).softmax(-1)  # rows: positions of a1
    fused = (affinity @ m.transpose(-1, -2)).transpose(-1, -2).reshape(2, 24, 4, 5)
    got, cosine = cfm(x)
    torch.testing.assert_close(got, cfm.out(fused), rtol=1e-4, atol=1e-5)
    assert cosine is None


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 0.0), (-3.0, 2.0)])
def test_cosine_distance_sees_direction_only(factor: float, expected: float) -> None:
    x = torch.randn(2, 8, 4, 4)
    assert cosine_distance(x, factor * x).item() == pytest.approx(expected, abs=1e-5)


def test_residual_and_narrow_mix_are_flags() -> None:
    config = CoherenceConfig(residual=True, mixed_channels=4, shared_gates=True)
    cfm = CFM(4, 8, config).eval()
    assert (cfm.gate.groups, cfm.mix.out_channels) == (4, 4 * 4)
    x = torch.randn(1, 4 * 8, 4, 4)
    with torch.no_grad():
        for parameter in cfm.out[1].parameters():
            parameter.zero_()
    torch.testing.assert_close(cfm(x)[0], x)


@pytest.mark.parametrize("shared_gates", [True, False])
def test_no_task_is_among_its_own_others(shared_gates: bool) -> None:
    cfm = CFM(3, 8, CoherenceConfig(shared_gates=shared_gates, mixed_channels=4)).eval()
    x = torch.randn(1, 3 * 8, 4, 5, requires_grad=True)
    for task in range(3):
        (gradient,) = torch.autograd.grad(cfm._mixed(x).view(3, 4, 4, 5)[task].sum(), x)
        reached = gradient.view(3, 8, 4, 5).abs().amax((1, 2, 3)) > 0
        assert reached.tolist() == [task != other for other in range(3)]


def test_refinement_resizes_to_the_stage_and_hands_its_channels_back() -> None:
    state, stage = torch.randn(2, 3 * 8, 16, 24), torch.randn(2, 3 * 32, 4, 6)
    srm = SRM(3, 8, 32, 16, last=False)
    pred, back = srm(state, stage)
    assert pred is not None
    assert back is not None
    assert (pred.shape, back.shape) == ((2, 3 * 16, 4, 6), (2, 3 * 32, 4, 6))
    assert srm.eval()(state, stage)[0] is None, "only an auxiliary head would read it"
    last = SRM(3, 8, 32, 16, last=True).eval()(state, stage)
    assert last[0] is not None
    assert last[1] is None


def heads(**flags: object) -> Heads:
    config = ModelConfig.model_validate({"tasks": {"depth": None, "normals": None}} | flags)
    return Heads(16, config.task_list(), config)


def test_depth_heads_are_narrower_and_positive_only_with_softplus() -> None:
    features = 100 * torch.randn(2, 2 * 16, 8, 8)
    paper, soft = heads(), heads(depth_activation="softplus")
    with torch.no_grad():
        nn.init.normal_(paper.layers()[0][0][:, :8], std=20)
    soft.load_state_dict(paper.state_dict())
    found, positive = paper(features), soft(features)
    assert found[:, 0].min() < 0 < positive[:, 0].min()
    assert torch.equal(found[:, 1:], positive[:, 1:])
    hidden = paper.hidden(features)
    assert hidden[:, :8].any()
    assert not hidden[:, 8:16].any()


def test_heads_read_their_own_task_alone() -> None:
    features = torch.randn(2, 2 * 16, 8, 8, requires_grad=True)
    found = heads().by_name(heads()(features))
    for name, own in (("depth", slice(16)), ("normals", slice(16, 32))):
        (gradient,) = torch.autograd.grad(found[name].square().sum(), features, retain_graph=True)
        assert gradient[:, own].any()
        gradient[:, own] = 0
        assert not gradient.any()


def test_normals_face_the_camera_where_asked() -> None:
    features = torch.randn(2, 2 * 16, 8, 8)
    paper, facing = heads(), heads(normals_facing=True)
    facing.load_state_dict(paper.state_dict())
    free, bound = paper(features), facing(features)
    assert free[:, 3].min() < 0
    torch.testing.assert_close(bound[:, 3], free[:, 3].abs())
    assert torch.equal(bound[:, :3], free[:, :3])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_attention_of_blocks_is_that_of_exported_graphs(memory_format: torch.memory_format) -> None:
    """In values, and in the gradients of maps and weights, which it computes by itself."""
    block = CBAM(3, 16).double()
    maps = torch.randn(2, 48, 6, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    slopes = torch.randn_like(maps)

    def taught() -> list[Tensor]:
        x = maps.clone().requires_grad_()
        found = block(x)
        return [found, *torch.autograd.grad((found * slopes).sum(), [x, *block.parameters()])]

    found = taught()
    with as_exported():
        expected = taught()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_heads_of_channels_last_are_those_of_exported_graphs() -> None:
    tasks = [make_task("semseg", "voc"), make_task("depth"), make_task("normals")]
    config = tiny_model(depth_activation="softplus", normals_facing=True)
    heads = Heads(8, tasks, config).double()
    x = torch.randn(2, 24, 4, 5, dtype=torch.float64, requires_grad=True)

    def taught() -> list[Tensor]:
        found = heads(x)
        return [found, *torch.autograd.grad(found.square().sum(), [x, *heads.parameters()])]

    found = taught()
    with as_exported():
        expected = taught()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
