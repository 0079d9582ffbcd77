"""The program `flow`: one file per group of commands."""


def main() -> None:
    """Runs the program; replaced by the command line as it grows."""
