"""`python -m t2i` and the console script `t2i`."""

import gc
import signal


def main() -> None:
    """Run the command line of this process and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end without a traceback
    from t2i.cli import main as run_command_line

    try:
        run_command_line()
    finally:
        gc.freeze()  # Python would search all that torch and its friends made for garbage before it exits


if __name__ == "__main__":
    main()
