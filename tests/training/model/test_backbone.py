"""Mask2Former's decoders against those of transformers."""

import pytest
import torch

from training.model.backbone import Backbone, published
from training.model.config import BackboneConfig
from training.model.exporting import as_exported

CONFIG = BackboneConfig(
    encoder="tf_efficientnet_lite0",
    channels=32,
    encoder_layers=2,
    encoder_feedforward=48,
    decoder_layers=4,
    decoder_feedforward=40,
    heads=4,
    queries=9,
)


@pytest.mark.parametrize("size", [(64, 96), (72, 56)])
def test_the_decoders_are_those_of_transformers(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    pixel_decoder, transformer = published(CONFIG, [24, 40, 112, 320])
    backbone = Backbone(CONFIG)
    ours = (backbone.pixel_decoder, backbone.transformer)
    for mine, theirs in zip(ours, (pixel_decoder, transformer), strict=True):
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        mine.load_state_dict(theirs.state_dict())
        mine.double()
        theirs.double()
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32)]
    features = [
        torch.randn(2, count, *side, dtype=torch.float64, requires_grad=True)
        for count, side in zip([24, 40, 112, 320], sizes, strict=True)
    ]
    decoded = pixel_decoder(features, output_hidden_states=False, return_dict=True)
    expected = transformer(decoded.multi_scale_features, decoded.mask_features).masks_queries_logits[-1]
    pyramid = backbone.pixel_decoder(features)
    found = backbone.transformer(pyramid)
    torch.testing.assert_close(pyramid.pixels, decoded.mask_features, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    with torch.no_grad(), as_exported():
        torch.testing.assert_close(
            backbone.pixel_decoder(features).pixels, decoded.mask_features, rtol=1e-9, atol=1e-9
        )
    wanted = torch.autograd.grad(expected.square().mean(), features)
    for ours_, theirs_ in zip(torch.autograd.grad(found.square().mean(), features), wanted, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-6, atol=1e-9)


def test_an_empty_mask_lets_its_query_see_all() -> None:
    decoder = Backbone(CONFIG).transformer.decoder
    pixels = torch.tensor([[[1.0, -1.0, 2.0]]])
    allowed = decoder._allowed(torch.tensor([[[1.0], [-1.0], [0.0]]]), pixels)
    assert allowed.tolist() == [[[True, False, True], [False, True, False], [True, True, True]]]
    assert decoder._allowed(torch.tensor([[[-1.0]]]), pixels.abs()).all()
