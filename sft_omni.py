"""Fine-tunes a thinker, encoders and projectors together: ``omnitune sft``."""

import sys

from omnitune.cli import main

if __name__ == "__main__":
    sys.exit(main(["sft", *sys.argv[1:]]))
