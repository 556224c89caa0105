"""The `recloss` command."""

import sys


def main() -> None:
    """Run the command line; a user's mistake ends with one line and exit code 2."""
    try:
        from pipelines.commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("pipelines", "recloss"):
            raise
        print(f"recloss: the command needs {error.name}: pip install 'recloss[pipelines]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
