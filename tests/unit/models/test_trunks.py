"""The backbones: sizes, maps, what a ViT does with its positions, and all of them under every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax import nnx

from simfle_jax.config import TRUNKS, TrunkSettings, named_trunk, pretraining
from simfle_jax.errors import UserError
from simfle_jax.models.transformer import positions
from simfle_jax.models.trunks import make_trunk, trunk_shapes
from simfle_jax.models.trunks.vit import ViT, resampled
from simfle_jax.training.state import split
from simfle_jax.training.step import Statistics, TrainStep
from simfle_jax.views import Views

QUICK = {"xla_backend_optimization_level": 0}  # each runs once
# Parameters of torchvision's and timm's own, without classifier.
PARAMETERS = {
    "resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032, "resnet101": 42_500_160,
    "vit_small_patch16_224": 21_665_664, "vit_base_patch16_224": 85_798_656,
}  # fmt: skip
TINY = {
    "bottleneck": {},
    "basic": {"kind": "basic"},
    "vit": {"kind": "vit", "stage_sizes": (2,), "width": 16, "heads": 2, "patch": 4},
}


def tiny(method: str = "simfle", kind: str = "vit", **changes):
    """The checked settings of a tiny run; a ViT's plain image is smaller than its views."""
    views = {"size": 16, "plain_size": 8 if kind == "vit" else 16}
    facemae = {"masking": "random"} if method == "mae" else {}
    return pretraining(small.settings(method=method, trunk=TINY[kind], views=views, facemae=facemae, **changes))


@pytest.fixture(scope="module")
def vit() -> ViT:
    return ViT(width=16, depth=2, heads=2, patch=4, grid=4, remat=False, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", TRUNKS)
def test_named_trunks_have_the_size_of_torchvisions_and_timms(name):
    trunk = TrunkSettings(**named_trunk(name), init_from="")
    shapes = trunk_shapes(trunk)
    trained = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    positions = shapes["stats"]["positions"].size if trunk.kind == "vit" else 0
    assert trained + positions == PARAMETERS[name]
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    found = jax.eval_shape(lambda x: make_trunk(trunk, 224, False, nnx.Rngs(0))(x, train=False), images)
    cells = 224 // trunk.stride
    assert found.map.shape == (2, cells, cells, trunk.features) and found.pooled.shape == (2, trunk.features)


@pytest.mark.parametrize("kind", TINY)
def test_recomputed_activations_change_no_number(kind):
    trunk, images = tiny(kind=kind).trunk, jax.random.normal(jax.random.key(0), (4, 16, 16, 3))

    def gradients(remat: bool):
        graph, params, stats = split(make_trunk(trunk, 16, remat, nnx.Rngs(0)))
        gradient = jax.grad(lambda p: jnp.square(nnx.merge(graph, p, stats)(images, train=True).map).sum())
        program = jax.jit(gradient, compiler_options=QUICK)
        return str(jax.make_jaxpr(gradient)(params)).count("remat"), program(params)

    (without, first), (with_remat, second) = gradients(False), gradients(True)
    assert without == 0 < with_remat
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), first, second)


def test_the_map_is_the_grid_of_patch_tokens_and_the_class_token_is_pooled(vit):
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    found, tokens = vit(images, train=False), vit.tokens(images)
    assert tokens.shape == (2, 17, 16)
    np.testing.assert_array_equal(found.pooled, tokens[:, 0])
    np.testing.assert_array_equal(found.map[:, 2, 3], tokens[:, 1 + 2 * 4 + 3])
    np.testing.assert_allclose(tokens.mean(-1), 0, atol=1e-5)  # normalised
    np.testing.assert_allclose(tokens.std(-1), 1, atol=1e-2)


def test_patches_that_do_not_stay_are_not_seen_and_the_others_keep_their_places(vit):
    images = np.array(jax.random.normal(jax.random.key(0), (2, 16, 16, 3)))
    kept = jnp.array([[3, 8, 5], [0, 15, 9]])
    tokens = vit.tokens(jnp.asarray(images), kept)
    assert tokens.shape == (2, 4, 16)
    hidden = images.copy()
    hidden[0, 4:8, 0:4], hidden[1, 0:4, 4:8] = 9, 9  # patches 4 and 1
    np.testing.assert_array_equal(vit.tokens(jnp.asarray(hidden), kept), tokens)
    turned = vit.tokens(jnp.asarray(images), kept[:, ::-1])
    np.testing.assert_allclose(turned[:, 1:], tokens[:, :0:-1], atol=1e-5)
    swapped = images.copy()
    swapped[0, 0:4, 12:16], swapped[0, 8:12, 0:4] = images[0, 8:12, 0:4], images[0, 0:4, 12:16]  # patches 3 and 8
    exchanged = vit.tokens(jnp.asarray(swapped), kept)[0, jnp.array([0, 2, 1, 3])]
    assert np.abs(exchanged - tokens[0]).max() > 0.01  # the same patches in other places
    everything = jnp.tile(jnp.arange(16), (2, 1))
    np.testing.assert_allclose(vit.tokens(jnp.asarray(images), everything), vit.tokens(jnp.asarray(images)), atol=1e-6)
    images[0, 0:4, 12:16] = 9  # patch 3, the first that stays
    assert np.abs(vit.tokens(jnp.asarray(images), kept) - tokens)[0].max() > 0.01


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (20, 20), (14, 9), (1, 1)])
def test_positions_are_resampled_as_by_timm(rows, columns):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(1 + 14 * 14, 8)).astype("f4")
    cells = torch.from_numpy(table[1:].reshape(1, 14, 14, 8).transpose(0, 3, 1, 2))
    expected = torch.nn.functional.interpolate(cells, size=(rows, columns), mode="bicubic", antialias=True)
    found = resampled(jnp.asarray(table), rows, columns)
    np.testing.assert_array_equal(found[0], table[0])
    np.testing.assert_allclose(found[1:], expected[0].numpy().transpose(1, 2, 0).reshape(-1, 8), atol=1e-5)


def test_positions_of_another_grid_are_used_resampled(vit):
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    small_vit = ViT(width=16, depth=2, heads=2, patch=4, grid=2, remat=False, rngs=nnx.Rngs(0))
    assert vit(images, train=False).map.shape == (2, 2, 2, 16)
    small_vit.positions.set_value(resampled(vit.positions[...], 2, 2))
    np.testing.assert_allclose(small_vit.tokens(images), vit.tokens(images), atol=1e-6)
    np.testing.assert_array_equal(vit.positions[...], positions(16, 4))


def method_state(config, images=8):
    """The state before and after one step of random views, and the step's metrics."""
    step, random = TrainStep(config, 1), np.random.default_rng(0)
    sizes = (config.views.size, config.views.size, config.views.plain_size)
    views = Views(*(random.normal(size=(images, size, size, 3)).astype("f4") for size in sizes))
    state = jax.jit(step.fresh_state, compiler_options=QUICK)()

    def one(state, views):
        draw = step.method.draw(jax.random.split(jax.random.key(1), images))
        stats = Statistics(state.stats, state.target_stats)
        (gradients, metrics), stats = step.gradients(state, stats, views, draw)
        return step.update(state, gradients, stats), metrics

    return state, *jax.jit(one, compiler_options=QUICK)(state, views)


@pytest.mark.parametrize("kind", ["basic", "vit"])
@pytest.mark.parametrize("method", ["simfle", "byol", "simsiam", "moco_v3", "mae"])
def test_every_method_trains_every_trunk(method, kind):
    if (method, kind) == ("mae", "basic"):
        with pytest.raises(UserError, match="masks patches of a ViT"):
            tiny(method, kind)
        return
    before, after, metrics = method_state(tiny(method, kind))
    assert {"loss/total", "features/std", "features/effective_rank"} <= set(metrics)
    for name, value in metrics.items():
        assert np.isfinite(value), f"{name} = {value}"
    assert metrics["loss/total"] > 0
    trunk, moved = before.params["online"]["encoder"], after.params["online"]["encoder"]
    still = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(trunk), jax.tree.leaves(moved))
        if np.array_equal(x, y)
    ]
    assert not still, f"no gradient reaches {still}"
    if kind == "vit":
        for stats in (after.stats["online"], after.target_stats):
            if stats:
                np.testing.assert_array_equal(stats["encoder"]["positions"], positions(16, 2 if method == "mae" else 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": {"size": 18, "plain_size": 16}}, "views.size = 18 is not divisible by trunk.patch = 4"),
        ({"views": {"size": 16, "plain_size": 10}}, "views.plain_size = 10 is not divisible by trunk.patch = 4"),
        ({"trunk": TINY["vit"] | {"patch": 0}}, "trunk.patch = 0 must be at least 1"),
        ({"trunk": TINY["vit"] | {"heads": 3}}, "trunk.width = 16 is not divisible by trunk.heads = 3"),
        ({"trunk": TINY["vit"] | {"stage_sizes": (1, 1)}}, "a ViT has one stage"),
        ({"facemae": {"n_groups": 3}}, "16 channels are not divisible into facemae.n_groups = 3"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        pretraining(small.settings(**{"trunk": TINY["vit"]} | changes))
