"""How the commands with settings start: flags, a locked config, and mistakes told in one line."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from simfle_jax import distributed, outputs
from simfle_jax.commands.ending import ended
from simfle_jax.commands.presets import load_config
from simfle_jax.config import WITHOUT_FACEMAE, flatten, today
from simfle_jax.errors import UserError

VARIANTS = ", or choose a trunk by its name, as in --config=configs/simfle.py:resnet18"
ELSEWHERE = {  # what other programs call some settings
    "learning_rate": ("lr", "optimizer.lr"), "batch": ("batch_size",), "num_epochs": ("epochs",), "image_size": ("views.size",),
    "num_workers": ("data.threads",), "workers": ("data.threads",), "data_dir": ("data.path",), "dataset_path": ("data.path",),
    "pretrained": ("trunk.init_from", "encoder"), "arch": ("trunk.kind",),
}  # fmt: skip
HELP = {"--help", "-h", "-help", "--helpfull", "--helpshort"}


def define_config() -> None:
    """--config FILE with every key overridable as --config.KEY=VALUE."""
    config_flags.DEFINE_config_file("config", None, "A file with the settings or a preset's name.", lock_config=True)
    flags.FLAGS["config"].parser = _ConfigParser()


class _ConfigParser(flags.ArgumentParser):
    """Loads a config whose path may hold colons; ml_collections takes all behind the first one for a variant's name."""

    def parse(self, path: str) -> Any:
        return load_config(path).lock()


def define_flags() -> None:
    """--config, and --workdir."""
    define_config()
    flags.DEFINE_string("workdir", None, "Folder of this run: made when new, continued when it holds the same run.")
    distributed.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])


def run(main: Callable[[Any, str], None], description: str | None, argv: list[str] | None = None) -> None:
    """Parses the flags and calls main(config, workdir); a user's mistake ends in one line and exit status 2.

    description: what --help prints before the flags.
    """
    define_flags()
    start(lambda: main(flags.FLAGS.config, flags.FLAGS.workdir), description, argv)


def start(call: Callable[[], None], description: str | None, argv: list[str] | None = None) -> None:
    """The same for a command with flags of its own, which `call` reads. argv: without the program's name."""
    outputs.outlive_readers()
    argv = sys.argv[1:] if argv is None else argv
    if HELP & set(argv):
        print(_help(description or "", argv))
        raise SystemExit(0)
    ended(lambda: _parse(argv))
    ended(call)


def _parse(argv: list[str]) -> None:
    argv = _joined(argv)
    # A shell leaves the ~ in --workdir=~/run as it is, and the folder would be called that.
    argv = [re.sub(r"^(--?[\w.]+=)(~/.*)", lambda m: m[1] + os.path.expanduser(m[2]), text) for text in argv]
    known = _known_settings(argv)
    argv = [today(argument, known) for argument in argv]
    _check_overrides(argv, known)
    sys.argv[1:] = argv  # config_flags looks there for the overrides
    try:
        rest = flags.FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise UserError(_flag_message(_one_line(error))) from None
    except (TypeError, ValueError) as error:  # what ml_collections raises for a value of another type
        raise UserError(f"a value on the command line does not fit its setting: {_one_line(error)}") from None
    if rest:
        raise UserError(
            f"{rest[0]!r} is no flag and would change nothing: write --config.KEY=VALUE, with the = and in quotes where "
            "there are blanks"
        )
    _check_method(argv)


def _joined(argv: list[str]) -> list[str]:
    """`--config FILE` and `--workdir DIR` with their equals signs, which ml_collections looks for."""
    found: list[str] = []
    for argument in argv:
        if found and re.fullmatch("--?(config|workdir)", found[-1]) and not argument.startswith("-"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def _check_method(argv: list[str]) -> None:
    """Refuses settings of FaceMAE on the command line where the method has none: they would change nothing."""
    method = flags.FLAGS.config.get("method", "simfle")
    given = [match[1] for argument in argv if (match := re.match(r"--?(?:no)?config\.(facemae\.\w+)", argument))]
    if given and method in WITHOUT_FACEMAE:
        raise UserError(
            f"config: method = {method!r} has no FaceMAE, and {given[0]} would change nothing: leave it out, or give "
            "--config.method=simfle"
        )


def _config_of(argv: list[str]) -> str:
    files = [match[1] for argument in argv if (match := re.match(r"--?config=(.+)", argument))]
    return files[-1] if files else ""


def _known_settings(argv: list[str]) -> dict[str, Any]:
    """All settings in the config file, flat; UserError if it is not there."""
    if not _config_of(argv):
        raise UserError("give --config=FILE, e.g. --config=configs/simfle.py")
    return flatten(load_config(_config_of(argv)) or {})


def _check_overrides(argv: list[str], known: dict[str, Any]) -> None:
    """Refuses an override of a setting that there is not, and names the nearest."""
    for key in (match[1] for argument in argv if (match := re.match(r"--?(?:no)?config\.([\w.]+)", argument))):
        if any(name.startswith(f"{key}.") for name in known):
            of = ", ".join(name for name in sorted(known) if name.startswith(f"{key}."))
            raise UserError(f"{key} is a group of settings: change one of {of}" + (VARIANTS if key == "trunk" else ""))
        if key not in known:
            last = {name.rsplit(".", 1)[-1]: name for name in known}  # most people forget the group
            near = [name for name in ELSEWHERE.get(key.rsplit(".", 1)[-1], ()) if name in known] or (
                difflib.get_close_matches(key, known, n=1)
                or [last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1)]
            )
            hint = f"did you mean {near[0]}?" if near else "--help beside --config=FILE lists all"
            raise UserError(f"there is no setting {key}; {hint}")


def _help(description: str, argv: list[str]) -> str:
    """What the command does, its flags, and the settings of the config that is given, with their values."""
    own = (
        name for name in flags.FLAGS if str(flags.FLAGS.find_module_defining_flag(name, "")).startswith("simfle_jax")
    )
    lines = [description.strip(), "", "Flags:"] + [f"  --{name}: {flags.FLAGS[name].help}" for name in sorted(own)]
    if _config_of(argv):
        settings = flatten(load_config(_config_of(argv)))
        lines += ["", "Settings:"] + [f"  --config.{name}={value}" for name, value in sorted(settings.items())]
    return "\n".join(lines)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:400]


def _flag_message(text: str) -> str:
    if "--workdir" in text and "None" in text:
        return "give --workdir=DIR, the folder for this run"
    if "--target" in text and "None" in text:
        return "give --target=NAME, e.g. tpu-v5e-256, h200-8 or cpu-8"
    return f"{text} (see --help)"
