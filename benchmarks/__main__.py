"""Run one benchmark by name, and write its figures into benchmarks/README.md.

python -m benchmarks            the names
python -m benchmarks views      one of them
python -m benchmarks all        one after the other: about three hours
"""

import importlib
import pkgutil
import subprocess
import sys

import benchmarks

HELPERS = ("__main__", "charts", "measuring", "peers", "report")


def main(arguments: list[str]) -> int:
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    names = [name for name in names if name not in HELPERS]
    if arguments == ["all"]:
        for name in names:  # each in a process of its own, which it may pin to a core
            subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)
        return 0
    if not arguments or arguments[0] not in names:
        print(f"python -m benchmarks NAME, where NAME is one of: all, {', '.join(names)}")
        return 0 if not arguments else 2
    importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
