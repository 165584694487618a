"""Talks to a trained model: at a prompt, or once with --prompt; --help lists the options."""

import sys

from omnitune.cli import main

if __name__ == "__main__":
    sys.exit(main(["chat", *sys.argv[1:]]))
