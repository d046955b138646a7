"""How every command ends: with its work done, or with one line that says what to mend."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from simfle_jax import distributed
from simfle_jax.data.bad_list import printable
from simfle_jax.errors import UserError


def ended(call: Callable[[], object]) -> None:
    """Calls. A user's mistake and a file that fails end in one line and status 2, Ctrl-C in one line and status 130.

    A closed pipe (`... | head -1`) is no error: status 0.
    """
    try:
        call()
        sys.stdout.flush()
    except UserError as error:
        _leave(str(error), 2, alone=type(error).__name__ == "LostPeer")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would fail once more at its end
        raise SystemExit(0) from None
    except OSError as error:
        _leave(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        print("stopped; the same command starts again", file=sys.stderr)
        distributed.leave(128 + signal.SIGINT, alone=True)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception:
        if distributed.joined():  # Python's own end would wait for the others, who may wait for this one
            traceback.print_exc()
            distributed.leave(1)
        raise


def _leave(message: str, status: int, alone: bool = False) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    distributed.leave(status, alone=alone)
    raise SystemExit(status) from None
