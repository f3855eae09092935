"""Print what a bug report needs to know of the machine."""

from __future__ import annotations

from collections.abc import Sequence

from yolox.tools.flags.env import make_parser
from yolox.utils.environment import environment_text


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, look, print."""
    make_parser().parse_args(argv)
    print(environment_text())


if __name__ == "__main__":
    main()
