"""What a study is: arms, seeds and probes; and whether the one in a folder is still the same."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from simfle_jax.config import Config, as_dict, check_seed, flatten, pretraining
from simfle_jax.config.schema import nested
from simfle_jax.config.typed import with_defaults
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError
from simfle_jax.evaluation.settings import Probe, probing
from simfle_jax.runs.folder import FREE
from simfle_jax.writing import write_json

KINDS = ("pretrained", "untrained", "supervised")
RECORD = "study.json"
PLACE = "data.path"  # recorded as an arm or a probe names it itself, '' where its images are those of --data


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to an encoder.

    config: settings as a file in configs/ gives them; seed and, where it is empty, data.path are the study's.
    kind: 'pretrained' by train.py; 'untrained', a fresh trunk of these settings; or 'supervised', that trunk trained on
        the labels of train for `config.epochs` epochs, the ceiling.
    """

    config: Any
    kind: str = "pretrained"


@dataclasses.dataclass(frozen=True)
class Faces:
    """Generated faces, others for every seed (`python -m simfle_jax.faces` says what each value means)."""

    count: int
    val_count: int
    size: int
    preset: str = "demo"


@dataclasses.dataclass(frozen=True)
class Study:
    """The grid. A plain config as an arm stands for Arm(config).

    probes: by name the settings of configs/probe.py that differ, flat: {'protocol': 'knn', 'knn.k': (5, 20)}.
    baseline: the arm that the others are compared with, seed by seed.
    faces: what to train and probe on; None: the folder of --data, which holds train/ and val/.
    curve: '' or the name of the probe that every kept checkpoint gets (`checkpoint_steps`, `keep_checkpoints`).
    scores: those of results.json that stand in the table, where a protocol has them.
    """

    arms: Mapping[str, Any]
    probes: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: tuple[int, ...] = (0, 1, 2)
    faces: Faces | None = None
    curve: str = ""
    scores: tuple[str, ...] = ("balanced_accuracy",)

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        found = self.arms[name]
        return found if isinstance(found, Arm) else Arm(found)

    def pieces(self) -> list["Piece"]:
        """All of them, in the order in which they run: every arm of a seed before the next seed."""
        pairs = [(seed, arm) for seed in self.seeds for arm in self.arms]
        return [Piece(number, arm, seed) for number, (seed, arm) in enumerate(pairs)]

    def epochs(self, name: str) -> int:
        """Of an arm's training; 1 where nothing is trained."""
        return 1 if self.arm(name).kind == "untrained" else self.pretraining(Piece(0, name, 0), Path.cwd()).epochs

    def pretraining(self, piece: "Piece", data: Path) -> Config:
        """The checked settings of a piece; its images are those of its config or data/train."""
        settings = _plain(self.arm(piece.arm).config) | {"seed": piece.seed}
        room = settings.get("data", {})
        if not room.get("path") and not room.get("sources"):
            settings["data"] = room | {"path": str(data / "train")}
        return _of(f"arm {piece.arm!r}", lambda: pretraining(settings))

    def probing(self, name: str, usual: Any, encoder: Path, data: Path, seed: int) -> Probe:
        """The checked settings of a probe; usual: those of configs/probe.py."""
        flat = flatten(_plain(usual)) | dict(self.probes[name])
        flat |= {"encoder": str(encoder), "seed": seed, "data.path": flat["data.path"] or str(data)}
        return _of(f"probe {name!r}", lambda: probing(nested(flat)))


class Piece(NamedTuple):
    """One arm with one seed: what runs at a time, and what `--only` counts."""

    number: int
    arm: str
    seed: int

    def folder(self, workdir: Path) -> Path:
        """Holds run/, probes/NAME/, and curve/STEP/."""
        return workdir / slug(self.arm) / f"seed{self.seed}"


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_")


def check(study: Study) -> None:
    """Raises UserError for what no run could mend: names that do not fit, seeds that repeat."""
    for what, names in (("arm", study.arms), ("probe", study.probes)):
        if not names:
            raise UserError(f"the study has no {what}s")
        places = {slug(name): name for name in names}
        if len(places) < len(names) or "" in places:
            raise UserError(f"the study's {what}s {', '.join(names)} need names that differ in letters or digits")
    for seed in study.seeds:
        check_seed(seed, "the study's seed")
    if len(set(study.seeds)) < len(study.seeds) or not study.seeds:
        raise UserError(
            f"the study's seeds {study.seeds} must be some, each of them once: a repeated one shows nothing"
        )
    for what, name, names in (("baseline", study.baseline, study.arms), ("curve", study.curve, study.probes)):
        if name not in names and (name or what == "baseline"):
            raise UserError(f"the study's {what} {name!r} is none of {', '.join(names)}")
    for name in study.arms:
        if study.arm(name).kind not in KINDS:
            raise UserError(f"arm {name!r}: kind = {study.arm(name).kind!r} must be one of {', '.join(KINDS)}")


def record(study: Study, workdir: Path, usual: Any, data: Path | None) -> None:
    """Writes study.json, which tells a later call whether what is there belongs to the same study.

    Arms, probes and seeds may be added or left out at any time; one that has begun stays as it was. usual: the settings
    of configs/probe.py. data: holds train/ and val/; None where the study generates its faces.

    Raises:
        UserError: an arm or a probe that has begun has other settings now; names it and the setting. Or other images.
    """
    now = _described(study, usual, data or Path.cwd()) | {"images": _images(data)}
    before = _read(workdir / RECORD)
    for kind, cls, began in (("arm", Config, _arms_begun), ("probe", Probe, _probes_begun)):
        for name, settings in now[f"{kind}s"].items():
            recorded = before.get(f"{kind}s", {}).get(name)
            if recorded is None:
                continue
            later = flatten(with_defaults(cls, nested(recorded)))  # settings that came after the record are as before
            old = {key: value for key, value in later.items() if key in recorded or key in settings}
            if PLACE not in recorded:  # by a version that did not write it
                old[PLACE] = settings[PLACE]
            changed = [key for key in sorted(settings | old) if old.get(key) != settings.get(key)]
            if not changed:
                continue
            if began(workdir, name):
                raise UserError(
                    f"{workdir} has begun {kind} {name!r} with {changed[0]} = {old.get(changed[0])!r}, now "
                    f"{settings.get(changed[0])!r}: give the old value back, call the changed {kind} by another name, "
                    "or give another --workdir"
                )
    if before.get("faces", now["faces"]) != now["faces"] and any(workdir.glob("faces/*")):
        raise UserError(
            f"{workdir} has begun with faces {before['faces']}, now {now['faces']}: give the old ones back, or another "
            "--workdir"
        )
    if before.get("images", now["images"]) != now["images"] and any(workdir.glob("*/seed*/run")):
        raise UserError(
            f"{workdir} has begun with other images than {f'those in {data}' if data else 'generated ones'}: give --data "
            "DIR with the ones of before, or another --workdir"
        )
    kept = {kind: before.get(kind, {}) | now[kind] for kind in ("arms", "probes")}
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / RECORD, now | kept)


def _images(data: Path | None) -> dict[str, str] | None:
    """What tells the images in a folder from others, nearly always: their names, and some of their sizes."""
    if data is None:
        return None
    return {split: FolderSource(data, split=split).quick_fingerprint for split in ("train", "val")}


def _described(study: Study, usual: Any, data: Path) -> dict[str, Any]:
    arms = {}
    for name in study.arms:
        settings = flatten(as_dict(study.pretraining(Piece(0, name, 0), data)))
        settings["kind"] = study.arm(name).kind
        own = _plain(study.arm(name).config).get("data", {}).get("path", "")
        arms[name] = {key: value for key, value in settings.items() if key not in FREE | {"seed"}} | {PLACE: own}
    probes, anything = {}, Path(__file__)  # encoders are not there yet, and their place is no part of the study
    for name in study.probes:
        settings = flatten(as_dict(study.probing(name, usual, anything, data, 0)))
        own = study.probes[name].get(PLACE, "")
        probes[name] = {k: v for k, v in settings.items() if k not in ("seed", "encoder", "data.threads")} | {
            PLACE: own
        }
    faces = dataclasses.asdict(study.faces) if study.faces else None
    return {"arms": arms, "probes": probes, "baseline": study.baseline, "seeds": list(study.seeds), "faces": faces}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and the study writes it anew") from None
    return found if isinstance(found, dict) else {}


def _arms_begun(workdir: Path, name: str) -> bool:
    folder = workdir / slug(name)
    return any(folder.glob("seed*/run/encoder.safetensors")) or any(folder.glob("seed*/run/checkpoints/*"))


def _probes_begun(workdir: Path, name: str) -> bool:
    return any(workdir.glob(f"*/seed*/probes/{slug(name)}/results.json"))


def _plain(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def _of(where: str, make: Any) -> Any:
    try:
        return make()
    except UserError as error:
        raise UserError(f"{where} of the study: {error}") from None
