"""Talks to a model from Python: text, a picture, a sound, several turns, pieces as they come.

    python examples/chat_in_python.py --ckpt_dir checkpoints/omni_sft_tiny \
        --image picture.png --audio question.wav
"""

import argparse
import sys

from omnitune import load_model
from omnitune.sample import UserError


def main() -> int:
    """Asks about a picture and a sound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt_dir", default="checkpoints/omni_sft_tiny")
    parser.add_argument("--image", help="a picture")
    parser.add_argument("--audio", help="a sound")
    options = parser.parse_args()
    try:
        model = load_model(options.ckpt_dir)
        print(model)

        print("hello:", model.chat("hello", max_new_tokens=32))

        if options.image:
            first = model.chat("describe the picture.", image=options.image, max_new_tokens=32)
            print("the picture:", first)

            # Earlier turns are handed over; the picture is not encoded again.
            turns = [
                {"role": "user", "content": "describe the picture.", "image": options.image},
                {"role": "assistant", "content": first},
            ]
            print("and more: ", end="")
            for piece in model.chat(
                "how many objects are there?", messages=turns, stream=True, max_new_tokens=32
            ):
                print(piece, end="", flush=True)
            print()

        if options.audio:
            print("it is said:", model.transcribe(options.audio, max_new_tokens=32))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
