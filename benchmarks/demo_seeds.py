"""The demo over many seeds: does every one learn, and do SimFLE and BYOL alone differ?

    python -m benchmarks.demo_seeds --workdir runs/seeds

Faces, settings and scores are the demo's (simfle_jax/commands/demo.py), but the runs come one after the other, each on all
cores that the command has, so that their seconds compare. The demo's BYOL takes 5,250 updates, about as long as SimFLE's 4,000;
it is also trained with 4,000. The same command goes on where it was stopped. Writes FILE after every run, and PICTURE with all
values at the end.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import arms
from simfle_jax import compilation
from simfle_jax.commands import demo
from simfle_jax.commands.ending import ended
from simfle_jax.commands.faces import write_faces
from simfle_jax.config import check_seed
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS

RUNS = {
    "SimFLE": ["--config=demo"],
    "BYOL": ["--config=demo_byol"],
    "BYOL, equal updates": ["--config=demo_byol", "--config.epochs=16"],
    "SimFLE, published tie": [
        "--config=demo", "--config.facemae.tie=published", "--config.facemae.alpha=0.03",
        "--config.facemae.plain_in_averages=True",
    ],
}  # fmt: skip
KEYS = {"probe": "probe, all labels", "probe_few": "probe, 400 labels", "retrieval": "view retrieval"}
CEILING = "trained on the labels"
KEPT = ("step", "seconds", "features/pooled_rank", "tie/agreement", "loss/similarity")


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/seeds"), help="default %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="of faces, runs and probes")
    parser.add_argument("--arms", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="ARM", help="default: all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: WORKDIR/scores.json")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="default: WORKDIR/scores.png")
    args = parser.parse_args(argv)
    args.out = args.out or args.workdir / "scores.json"
    args.picture = args.picture or args.workdir / "scores.png"
    ended(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Every arm of every seed, and of the first seed the ceiling; then the tables."""
    for seed in args.seeds:
        check_seed(seed, "--seeds")
    compilation.use_cache()
    about = {"faces": demo.FACES, "held_out": demo.HELD_OUT, "size": demo.SIZE, "arms": RUNS}
    table = arms.Table(args.out, about)
    for seed in args.seeds:
        write_faces(args.workdir / f"faces{seed}", demo.FACES, demo.HELD_OUT, seed, demo.SIZE, DEMO)
        names = [*args.arms, "untrained", *([CEILING] if seed == 0 else [])]
        arms.measure(table, [seed], names, lambda arm, seed: scores(args.workdir, arm, seed), f"seed {seed}, arms")
        faces.cache_clear()
    arms.drawn(table, shown(table), KEYS, args.picture)
    print(told(table))


def scores(workdir: Path, arm: str, seed: int) -> arms.Scores:
    """What the demo scores, of one arm, with the seconds of its training."""
    from simfle_jax.encoder import load_encoder, untrained_encoder
    from simfle_jax.evaluation.supervised import train_supervised

    metrics = dict[str, float]()
    if arm in RUNS:
        flags = [f"--config.seed={seed}", f"--config.data.path={(workdir / f'faces{seed}' / 'train').absolute()}"]
        folder = workdir / f"{arm.lower().replace(', ', '_').replace(' ', '_')}{seed}"
        metrics = arms.trained([*RUNS[arm], *flags], folder, folder.with_suffix(".log"))
        encoder = load_encoder(folder)
    else:
        encoder = untrained_encoder(load_encoder(workdir / f"simfle{seed}"), seed)
    train, test, views = faces(workdir, seed)
    if arm == CEILING:
        encoder = train_supervised(encoder, train[0], train[1], len(EXPRESSIONS), epochs=4, batch_size=32, seed=seed)
    kept = {key: value for key, value in metrics.items() if key in KEPT or key.startswith("shortcut/")}
    return demo.score(encoder, views, train, test, seed) | kept


@cache
def faces(workdir: Path, seed: int) -> tuple[Any, Any, Any]:
    """A seed's faces for the probe, those held out, and two views of some of them."""
    from simfle_jax.training.restore import run_config

    train, test = (demo.load_faces(workdir / f"faces{seed}", split) for split in ("train", "val"))
    return train, test, demo.two_views(run_config(workdir / f"simfle{seed}"), test[0])


def shown(table: arms.Table) -> list[str]:
    """The arms of the picture, in the order of the table."""
    return [arm for arm in ("untrained", *RUNS) if arm in table.arms()]


def told(table: arms.Table) -> str:
    """All rows as text: each arm's scores, gains over the untrained encoder, and SimFLE against BYOL alone."""
    lines = [f"{'mean of the seeds (range)':28s}" + "".join(f"{title:>28s}" for title in KEYS.values())]
    for arm in table.arms():
        lines.append(f"{arm:28s}" + "".join(f"{arms.spread(table, arm, key):>28s}" for key in KEYS))
    for arm in shown(table)[1:]:
        gains = [arms.differences(table, arm, "untrained", key) for key in KEYS]
        lines.append(f"gains, {arm:21s}" + "".join(f"{sum(x) / len(x):+12.1f}, least {min(x):+9.1f}" for x in gains))
    for other in shown(table)[2:]:
        found = [arms.differences(table, "SimFLE", other, key) for key in KEYS]
        lines.append(
            f"SimFLE - {other:19s}" + "".join(f"{arms.interval(x)!s:>28s}" for x in found) + f", n={len(found[0])}"
        )
    for key, title in KEYS.items():
        lines += ["", title + ": " + "; ".join(shown(table))]
        for seed in table.of("untrained"):
            values = [
                f"{100 * table.of(arm)[seed][key]:6.1f}" if seed in table.of(arm) else "     -" for arm in shown(table)
            ]
            lines.append(f"seed {seed}: " + " ".join(values))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
