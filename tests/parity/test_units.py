"""The parts of the method against golden/units.npz, in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference import assert_close, filled, inputs

from configs import simfle
from simfle_jax import losses
from simfle_jax.config import Config, pretraining
from simfle_jax.models.channel_grouping import ChannelGrouping
from simfle_jax.models.facemae import Autoencoder, patchify
from simfle_jax.models.heads import MLPHead
from simfle_jax.models.network import Network
from simfle_jax.models.semantic_masking import group_maps, mask_by_scores, of_group, patch_scores
from simfle_jax.models.transformer import positions
from simfle_jax.training.optimizer import schedule
from simfle_jax.training.state import split, statistics
from simfle_jax.weights import torch_names as names

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def units(golden):
    return dict(np.load(golden / "units.npz"))


def paper_config(**facemae) -> Config:
    settings = simfle.get_config()
    settings.facemae.update(tie="published", plain_in_averages=True)
    settings.facemae.update(**facemae)
    return pretraining(settings)


def fill_module(module: nnx.Module, entries, units, prefix: str = ""):
    """The graph and the filled 'params' and 'stats' of a module."""
    graph, params, stats = split(module)
    trees = filled(entries, {"params": params, "stats": stats}, int(units["meta/salt"]), prefix)
    return graph, trees["params"], trees.get("stats", {})


def test_semantic_masking(units):
    seed, batch, channels, groups, keep = int(units["meta/seed"]), 6, 64, 8, 12
    entries = list(names.channel_grouping("semantic_masking.channel_grouping", ()))
    module = ChannelGrouping(channels, groups, "constant", nnx.Rngs(0))
    graph, params, stats = fill_module(module, entries, units)
    features = np.abs(inputs(seed, batch, channels, 4, 4))
    tokens = inputs(seed + 1, batch, 49, 32)
    group_ids = np.random.RandomState(seed + 2).randint(0, groups, batch)
    assert (group_ids == units["semantic_masking/group_ids"]).all()

    def g_of(params):
        activation = nnx.merge(graph, params, stats)(features, train=True)
        return losses.grouping(losses.grouping_matrix(activation), groups), activation

    (g, activation), grads = jax.value_and_grad(g_of, has_aux=True)(params)
    masking = mask_by_scores(of_group(patch_scores(group_maps(activation, groups), 7, 16), group_ids), keep)
    assert_close(np.full(batch, g), units["semantic_masking/g_loss"], 1e-9, "g")
    assert_close(activation[:2].transpose(0, 3, 1, 2), units["semantic_masking/activation"], 1e-9, "activation")
    assert (np.asarray(masking.masked) == units["semantic_masking/mask"].reshape(batch, 49)).all()
    assert (np.asarray(masking.restore) == units["semantic_masking/ids_restore"]).all()
    kept = np.take_along_axis(tokens, np.asarray(masking.kept)[:, :, None], 1)
    assert_close(kept, units["semantic_masking/kept_tokens"], 1e-9, "kept tokens")
    weight = names.POINTWISE.to_torch(np.asarray(grads["kernel"]))
    assert_close(weight.reshape(units["semantic_masking/grad_conv_weight"].shape),
                 units["semantic_masking/grad_conv_weight"], 1e-8, "gradient of the grouping")  # fmt: skip


def test_masked_autoencoder(units):
    seed = int(units["meta/seed"])
    sizes = {
        "width": 48,
        "depth": 2,
        "heads": 4,
        "decoder_width": 32,
        "decoder_depth": 2,
        "decoder_heads": 4,
    }
    config = paper_config(**sizes)
    entries = list(names.autoencoder(config, "mae", ()))
    graph, params, _ = fill_module(Autoencoder(config, nnx.Rngs(0)), entries, units)
    patches = jnp.asarray(patchify(inputs(seed + 3, 3, 3, 112, 112), 16))
    masking = mask_by_scores(-units["mae/noise"], config.kept_patches)

    def loss_of(params):
        mae = nnx.merge(graph, params)
        predicted = mae.decode(mae.encode(patches, masking), masking)
        return losses.reconstruction(predicted, patches, masking.masked), predicted

    (loss, predicted), grads = jax.value_and_grad(loss_of, has_aux=True)(jax.tree.map(jnp.asarray, params))
    assert_close(patches[:, 0], units["mae/patchify_first"], 1e-9, "patchify")
    assert_close(loss, units["mae/loss"], 1e-9, "reconstruction loss")
    assert_close(predicted, units["mae/pred"], 1e-9, "predicted pixels")
    assert (np.asarray(masking.masked) == units["mae/mask"].reshape(3, 49)).all()
    qkv = grads["encoder"]["blocks"][0]["attn"]["qkv"]["kernel"].T
    assert_close(qkv, units["mae/grad_qkv0"], 1e-8, "gradient of the first qkv")
    assert_close(grads["mask_token"], units["mae/grad_mask_token"], 1e-8, "gradient of the mask token")


@pytest.mark.parametrize("name,width", [("pos_embed", 48), ("decoder_pos_embed", 32)])
def test_positions(units, name, width):
    assert_close(positions(width, 7).reshape(units[f"mae/{name}"].shape), units[f"mae/{name}"], 1e-7, name)


def test_mlp_head(units):
    seed = int(units["meta/seed"])
    graph, params, stats = fill_module(MLPHead(20, 24, 16, nnx.Rngs(0)), list(names._head("mlp_head", ())), units)
    head = nnx.merge(graph, params, stats)
    x = inputs(seed + 5, 10, 20)
    assert_close(head(x, train=True), units["mlp_head/train_out"], 1e-9, "training output")
    assert_close(head.bn.var[...], units["mlp_head/running_var"], 1e-9, "running variance (unbiased)")
    assert_close(head(x, train=False), units["mlp_head/eval_out"], 1e-9, "inference output")


def test_losses(units):
    seed = int(units["meta/seed"])
    u, v = jnp.asarray(inputs(seed + 6, 7, 12)), jnp.asarray(inputs(seed + 7, 7, 12))
    assert_close(losses.similarity(u, v), units["loss/similarity"], 1e-9, "similarity")
    assert_close(losses.distillation(u, v, 4.0), units["loss/distillation_T4"], 1e-9, "distillation")


def test_resnet50(units):
    seed = int(units["meta/seed"])
    config = paper_config()
    entries = list(names._network("online_network", config.trunk, ()))
    module = nnx.eval_shape(lambda: Network(config, nnx.Rngs(0)))
    graph, params, stats = fill_module(module, entries, units)

    @jax.jit
    def training(params, stats, x):
        network = nnx.merge(graph, params, stats)
        features, pooled = network.encoder(x, train=True)
        return network.projection(pooled, train=True), pooled, features, statistics(network)

    z, pooled, features, stats = training(params, stats, inputs(seed + 8, 3, 3, 64, 64))
    assert_close(z, units["resnet50/train_z"], 1e-9, "projection")
    assert_close(pooled, units["resnet50/train_pool"], 1e-9, "pooled features")
    first = features[0].transpose(2, 0, 1)
    assert_close(first.reshape(units["resnet50/train_feat"].shape), units["resnet50/train_feat"], 1e-9, "feature map")
    later = jax.jit(lambda x: nnx.merge(graph, params, stats).encoder(x, train=False).pooled)(
        inputs(seed + 9, 2, 3, 64, 64)
    )
    assert_close(later, units["resnet50/eval_pool_after_one_train_step"], 1e-9, "inference with updated statistics")


def test_schedule(units):
    config = dataclasses.replace(paper_config(), batch_size=256)
    rates = [float(schedule(config, 10)(jnp.asarray(10 * epoch + 9))) for epoch in range(100)]
    assert_close(rates, units["schedule/cosine_lr_0.05_100"], 1e-9, "learning rate per epoch")
