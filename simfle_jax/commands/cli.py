"""How train.py and probe.py start: flags, a locked config, and errors told in one line."""

import difflib
import os
import re
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from simfle_jax import distributed, outputs
from simfle_jax.config import today
from simfle_jax.errors import UserError


def define_config() -> None:
    """--config FILE with every key overridable as --config.KEY=VALUE."""
    config_flags.DEFINE_config_file("config", None, "File with the settings, e.g. configs/simfle.py.", lock_config=True)
    flags.FLAGS["config"].parser = _ConfigParser()


class _ConfigParser(flags.ArgumentParser):
    """Loads a config whose path may hold colons; ml_collections takes all behind the first one for a variant's name."""

    def parse(self, path: str) -> Any:
        return _load_config(path).lock()


def _load_config(text: str) -> Any:
    """The config of FILE, or of FILE:VARIANT, which `get_config` is then called with."""
    ends = [match.start() for match in re.finditer(":|$", text)]
    end = next((end for end in ends if os.path.isfile(text[:end])), ends[0])
    return runpy.run_path(text[:end])["get_config"](*[text[end + 1 :]] * (end < len(text)))


def define_flags() -> None:
    """--config, and --workdir."""
    define_config()
    flags.DEFINE_string("workdir", None, "Folder of this run: made when new, continued when it holds the same run.")
    distributed.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])


def run(main: Callable[[Any, str], None], argv: list[str] | None = None) -> None:
    """Parses the flags and calls main(config, workdir); a user's mistake ends in one line and exit status 2."""
    start(lambda: main(flags.FLAGS.config, flags.FLAGS.workdir), argv)


def start(call: Callable[[], None], argv: list[str] | None = None) -> None:
    """The same for a command with flags of its own, which `call` reads."""
    outputs.outlive_readers()
    argv = argv or sys.argv
    if {"--help", "-h", "-help", "--helpfull"} & set(argv):
        app.run(lambda _: None, argv=argv)
    try:
        known = _known_settings(argv)
        argv = [today(argument, known) for argument in argv]
        _check_overrides(argv, known)
        sys.argv = argv  # config_flags looks there for the overrides
        flags.FLAGS(argv)
    except UserError as error:
        _fail(str(error))
    except flags.Error as error:
        _fail(_flag_message(_one_line(error)))
    except (TypeError, ValueError) as error:  # what ml_collections raises for a value of another type
        _fail(f"a value on the command line does not fit its setting: {_one_line(error)}")
    _guarded(call)


def _known_settings(argv: list[str]) -> list[str]:
    """The names of all settings in the config file; UserError if it is not there."""
    files = [match[1] for arg in argv if (match := re.match(r"--?config=(.+)", arg))]
    if not files:
        raise UserError("give --config=FILE, e.g. --config=configs/simfle.py")
    try:
        return _keys(_load_config(files[-1]))
    except (OSError, KeyError, SyntaxError, ImportError, NameError, TypeError, ValueError) as error:
        raise UserError(f"no config in {files[-1]}: {_one_line(error)}; configs/ holds those of the project") from None


def _check_overrides(argv: list[str], known: list[str]) -> None:
    """Refuses an override of a setting that there is not, and names the nearest."""
    for key in (match[1] for arg in argv if (match := re.match(r"--?(?:no)?config\.([\w.]+)", arg))):
        if key not in known:
            last = {name.rsplit(".", 1)[-1]: name for name in known}  # most people forget the group
            near = difflib.get_close_matches(key, known, n=1) or [
                last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1)
            ]
            raise UserError(
                f"there is no setting {key}" + (f"; did you mean {near[0]}?" if near else "")
            )


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        distributed.leave(2, alone=type(error).__name__ == "LostPeer")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command starts again", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:400]


def _flag_message(text: str) -> str:
    if "--workdir" in text and "None" in text:
        return "give --workdir=DIR, the folder for this run"
    if "--target" in text and "None" in text:
        return "give --target=NAME, e.g. tpu-v5e-256, h200-8 or cpu-8"
    return f"{text} (see --help)"


def _keys(config: Any, prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in (config or {}).items():
        found += _keys(value, f"{prefix}{key}.") if hasattr(value, "items") else [prefix + key]
    return found
