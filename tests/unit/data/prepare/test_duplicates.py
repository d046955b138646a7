"""Near copies are found, others are not, and no pair within the bound is missed."""

import itertools

import layout_fakes as fakes
import numpy as np
from PIL import Image

from simfle_jax.data.decode import decode
from simfle_jax.data.prepare import duplicates


def thumbnail(data: bytes) -> np.ndarray:
    pixels = decode(data, 128).reshape(16, 8, 16, 8, 3).mean((1, 3)) @ [0.299, 0.587, 0.114]
    return np.round(pixels).astype(np.uint8)


def test_candidates_are_all_pairs_within_four_bits():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 300, dtype=np.uint64)
    for copy in range(0, 300, 3):  # each third one is its neighbour with zero to six bits turned
        turned = random.choice(64, copy % 7, replace=False).astype(np.uint64)
        hashes[copy] = hashes[copy + 1] ^ np.bitwise_or.reduce(np.uint64(1) << turned, initial=np.uint64(0))
    distance = {(i, j): int(hashes[i] ^ hashes[j]).bit_count() for i, j in itertools.combinations(range(300), 2)}
    expected = [pair for pair, bits in distance.items() if bits <= 4]
    assert [tuple(pair) for pair in duplicates.candidates(hashes).tolist()] == sorted(expected)
    assert len(expected) > 50


def test_hash_is_that_of_the_cosine_transform():
    from scipy.fft import dctn

    images = np.stack([thumbnail(fakes.encode(fakes.picture(seed))) for seed in range(3)])
    low = dctn(images.astype(float), axes=(1, 2))[:, :8, :8].reshape(3, 64)
    low[:, 0] = 0
    bits = low > np.median(low, axis=1, keepdims=True)
    expected = [sum(int(bit) << place for place, bit in enumerate(row)) for row in bits]
    assert duplicates.perceptual_hash(images).tolist() == expected


def test_near_copies_are_grouped():
    original = fakes.picture(7, (100, 100))
    copies = [
        fakes.encode(original),
        fakes.encode(original, "JPEG", quality=50),
        fakes.encode(original.resize((61, 61), Image.Resampling.BICUBIC)),
        fakes.encode(original.resize((200, 200)), "WEBP", quality=70),
    ]
    others = [fakes.encode(fakes.picture(seed, (100, 100))) for seed in range(100, 140)]
    images = np.stack([thumbnail(data) for data in copies + others])
    assert duplicates.near_groups(images) == [[0, 1, 2, 3]]


def test_mirrored_copies_are_grouped_and_symmetric_ones_are_not():
    original, other = fakes.picture(7, (128, 128)), fakes.picture(8, (128, 128))
    mirrored = original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    half = np.asarray(other)[:, :64]
    symmetric = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    pictures = [fakes.encode(original), fakes.encode(symmetric), fakes.encode(mirrored, "JPEG", quality=50),
                fakes.encode(symmetric, "WEBP", lossless=True), *(fakes.encode(fakes.picture(s)) for s in range(20, 40))]  # fmt: skip
    images = np.stack([thumbnail(data) for data in pictures])
    assert duplicates.mirrored_groups(images) == [[0, 2]]
    assert duplicates.near_groups(images) == [[1, 3]]


def test_flat_images_are_not_near_copies():
    assert duplicates.near_groups(np.stack([np.full((16, 16), value, np.uint8) for value in (0, 255, 128)])) == []


def test_exact_groups_and_joined_pairs():
    assert duplicates.exact_groups([b"a", b"b", b"a", b"c", b"b", b"a"]) == [[0, 2, 5], [1, 4]]
    assert duplicates.joined([(0, 3), (5, 9), (3, 7)]) == [[0, 3, 7], [5, 9]]
