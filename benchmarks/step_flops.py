"""FLOPs of one image in one training step, counted by hand from the shapes: products only, a multiply-add is two."""

from simfle_jax.config import Config


def by_hand(config: Config) -> dict[str, float]:
    """FLOPs per image of every part; a backward pass costs twice its forward pass."""
    features, heads, m = config.trunk.features, config.heads, config.facemae
    view, plain = trunk(config, config.views.size), trunk(config, config.views.plain_size)
    projection = head(features, heads.hidden, heads.out)
    predictor = head(heads.out, heads.hidden, heads.out)
    has_facemae = config.method == "simfle"
    distil = has_facemae and m.alpha > 0
    online = 2 * 3 * (view + projection + predictor + (projection if distil else 0))
    parts = {"online": online, "target": 2 * (view + projection)}
    if has_facemae:
        parts["facemae"] = 3 * facemae(config) + (3 * head(m.width, heads.hidden, heads.out) if distil else 0)
    if has_facemae and m.masking == "semantic":
        cells = config.feature_grid**2
        # The product with the kernel and the matrix of all pairs of channels; features get no gradient.
        parts["grouping"] = plain + 2 * cells * features**2 * (2 + 3)
    return parts | {"total": sum(parts.values())}


def trunk(config: Config, size: int) -> float:
    """Forward pass of the trunk on one image of `size` pixels."""
    m = config.trunk
    if m.kind == "vit":
        patches = (size // m.patch) ** 2
        return m.stage_sizes[0] * block(patches + 1, m.width) + 2.0 * patches * 3 * m.patch**2 * m.width
    side = -(-size // 2)
    flops = 2.0 * side**2 * 49 * 3 * m.width
    side, inputs = -(-side // 2), m.width
    for i, blocks in enumerate(m.stage_sizes):
        for j in range(blocks):
            stride = 1 if i == 0 or j else m.last_stride if i == len(m.stage_sizes) - 1 else 2
            after, width = -(-side // stride), m.width * 2**i
            flops += residual_block(m.kind, (side, after), inputs, width)
            side, inputs = after, width * (4 if m.kind == "bottleneck" else 1)
    return flops


def residual_block(kind: str, sides: tuple[int, int], inputs: int, width: int) -> float:
    """Forward pass of a block on a map of `sides[0]`, which becomes one of `sides[1]`."""
    before, after = (side**2 for side in sides)
    if kind == "bottleneck":
        outputs, flops = 4 * width, 2.0 * before * inputs * width + 2 * after * (9 * width**2 + 4 * width**2)
    else:
        outputs, flops = width, 2.0 * after * 9 * (inputs * width + width**2)
    return flops + (2 * after * inputs * outputs if before != after or inputs != outputs else 0)


def head(inputs: int, hidden: int, outputs: int) -> float:
    """Forward pass of an MLP head."""
    return 2.0 * hidden * (inputs + outputs)


def facemae(config: Config) -> float:
    """Forward pass of the masked autoencoder."""
    m, patches, pixels = config.facemae, config.grid**2, 3 * config.facemae.patch**2
    kept = config.kept_patches + 1
    encoder = m.depth * block(kept, m.width) + 2 * patches * pixels * m.width
    decoder = m.decoder_depth * block(patches + 1, m.decoder_width) + 2 * (patches + 1) * m.decoder_width * pixels
    return encoder + decoder + 2 * kept * m.width * m.decoder_width


def block(tokens: int, width: int) -> float:
    """Forward pass of one transformer block: qkv, output and MLP of four times the width; then attention itself."""
    return 2.0 * tokens * 12 * width**2 + 4 * tokens**2 * width
