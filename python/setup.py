"""The wheel takes the declarations from the C header, client/gist.h of this repository or that of an installed
libgist, so that there is one text of them. All else is in pyproject.toml."""

import os
import shutil
import subprocess

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = os.path.dirname(os.path.abspath(__file__))
BESIDE = os.path.join(HERE, "gistd", "gist.h")  # in a source package


def header() -> str:
    for path in (os.path.join(HERE, "..", "client", "gist.h"), BESIDE):
        if os.path.exists(path):
            return path
    folder = subprocess.run(["pkg-config", "--variable=includedir", "gist"], capture_output=True, text=True)
    path = os.path.join(folder.stdout.strip(), "gist.h")
    if folder.returncode != 0 or not os.path.exists(path):
        raise SystemExit("gist.h is not here: build in gistd's repository, or install libgist-dev")
    return path


def copy(folder: str) -> None:
    """gist.h, and beside it the parts that it includes."""
    parts = os.path.join(os.path.dirname(header()), "gist")
    shutil.copy(header(), folder)
    shutil.copytree(parts, os.path.join(folder, "gist"), dirs_exist_ok=True)


class Build(build_py):
    def run(self) -> None:
        super().run()
        copy(os.path.join(self.build_lib, "gistd"))


class Source(sdist):
    def make_release_tree(self, base_dir: str, files: "list[str]") -> None:
        super().make_release_tree(base_dir, files)
        copy(os.path.join(base_dir, "gistd"))


setup(cmdclass={"build_py": Build, "sdist": Source})
