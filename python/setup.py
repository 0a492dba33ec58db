"""Builds the shared library with CMake and puts it, and the declarations of its headers, into the package.

POWERINFER2_BUILD names a folder in which it is built already, such as ../build.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    try:
        from wheel.bdist_wheel import bdist_wheel  # where setuptools is older than 70.1
    except ImportError:
        bdist_wheel = None  # all but wheels can be built

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent
SYSTEM = re.compile(r"^(lib(c|m|dl|rt|pthread|gcc_s)\.so|ld-linux|linux-vdso)")  # what every system has


def version():
    return re.search(r"project\(powerinfer2 VERSION ([0-9.]+)", (SOURCES / "CMakeLists.txt").read_text())[1]


def built(folder):
    """The shared library in a folder of CMake's, which is built first where it was not."""
    if "POWERINFER2_BUILD" in os.environ:
        folder = Path(os.environ["POWERINFER2_BUILD"])
    else:
        subprocess.check_call(["cmake", "-S", str(SOURCES), "-B", str(folder), "-DPI2_TESTS=OFF",
                               "-DCMAKE_BUILD_TYPE=Release"])
        subprocess.check_call(["cmake", "--build", str(folder), "--target", "powerinfer2_shared", "--parallel",
                               str(os.cpu_count() or 1)])
    return folder / "libpowerinfer2.so"


def needed(library):
    """Name and file of the libraries that it needs and that are not the system's own."""
    for line in subprocess.check_output(["ldd", str(library)], text=True).splitlines():
        found = re.match(r"\s*(\S+) => (/\S+)", line)
        if found and not SYSTEM.match(found[1]):
            yield found[1], found[2]


class BuildWithLibrary(build_py):
    def run(self):
        super().run()
        package = Path(self.build_lib) / "powerinfer2"
        folder = package / "lib"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        library = built(Path(self.get_finalized_command("build").build_temp).resolve() / "cmake")
        shutil.copy(library.resolve(), folder / "libpowerinfer2.so")
        for name, path in needed(library):
            shutil.copy(path, folder / name)
        subprocess.check_call([sys.executable, str(HERE / "make_declarations.py"), str(SOURCES / "include"),
                               str(package / "_declarations.py")])


commands = {"build_py": BuildWithLibrary}
if bdist_wheel:
    class WheelOfThisMachine(bdist_wheel):
        """For any Python 3 of this machine's kind: the library is not Python's."""

        def finalize_options(self):
            super().finalize_options()
            self.root_is_pure = False

        def get_tag(self):
            return "py3", "none", super().get_tag()[2]

    commands["bdist_wheel"] = WheelOfThisMachine


class WithLibrary(Distribution):
    def has_ext_modules(self):
        return True


setup(version=version(), packages=["powerinfer2"], package_data={"powerinfer2": ["py.typed"]},
      cmdclass=commands, distclass=WithLibrary)
