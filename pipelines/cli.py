"""The `recloss` command."""

import sys


def main() -> None:
    """Run the command line; a user's mistake ends with one line and exit code 2."""
    try:
        from pipelines.commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("pipelines", "recloss"):
            raise
        sys.exit(_without_extra(error.name))
    sys.exit(run(sys.argv[1:]))


def _without_extra(module: str | None) -> int:
    print(
        f"recloss: the command needs {module}, of the pipelines extra: pip install 'recloss[pipelines]'",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    main()
