#!/usr/bin/env python3
"""What the configure step must refuse, and how it says so.

    test_configure.py CMAKE SOURCE WORK HDF5_LIBRARY HDF5_INCLUDE CC

SPDX-License-Identifier: BSD-3-Clause
"""
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

CMAKE, SOURCE, WORK, HDF5_LIBRARY, HDF5_INCLUDE, CC = sys.argv[1:7]
PACKAGES = ["libopenmpi-dev", "libhdf5-openmpi-dev", "libscalapack-openmpi-dev", "libopenblas-dev",
            "libinih-dev", "libcjson-dev", "libxxhash-dev", "libcairo2-dev", "libcmocka-dev"]


class Refusals(unittest.TestCase):
    def setUp(self):
        self.work = Path(WORK) / self._testMethodName
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def configure(self, *options, **environment):
        command = [CMAKE, "-S", SOURCE, "-B", str(self.work / "build"), f"-DCMAKE_C_COMPILER={CC}", *options]
        run = subprocess.run(command, env={**os.environ, **environment}, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return run.returncode, " ".join(run.stdout.split())

    def fake_hdf5(self, parallel):
        """A prefix with an HDF5 whose header says parallel or not; returns its library's path."""
        prefix = self.work / "prefix"
        (prefix / "include").mkdir(parents=True)
        (prefix / "lib/pkgconfig").mkdir(parents=True)
        define = "#define H5_HAVE_PARALLEL 1" if parallel else "/* #undef H5_HAVE_PARALLEL */"
        (prefix / "include/H5pubconf.h").write_text(define + "\n")
        (prefix / "lib/pkgconfig/hdf5-fake.pc").write_text(
            "Name: HDF5\nDescription: made for a test\nVersion: 1.10.8\n"
            f"Cflags: -I{prefix}/include\nLibs: -L{prefix}/lib -lhdf5\n")
        (prefix / "lib/libhdf5_hl.so").symlink_to(Path(HDF5_LIBRARY).parent / "libhdf5_hl.so")
        return prefix / "lib/libhdf5.so"

    def test_everything_missing_is_named_at_once(self):
        empty = str(self.work)
        code, text = self.configure("-DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON", PKG_CONFIG_LIBDIR=empty, PKG_CONFIG_PATH=empty)
        self.assertNotEqual(code, 0, text)
        for package in PACKAGES:
            self.assertIn(package, text)

    def test_one_missing_is_named_alone(self):
        code, text = self.configure("-DLONGSPAN_HDF5_PKGCONFIG=no-such-hdf5")
        self.assertNotEqual(code, 0, text)
        missing = text.split("these are missing:")[1]
        self.assertEqual([package for package in PACKAGES if package in missing], ["libhdf5-openmpi-dev"])

    def test_serial_hdf5_by_name(self):
        library = self.fake_hdf5(parallel=False)
        library.symlink_to(HDF5_LIBRARY)
        code, text = self.configure("-DLONGSPAN_HDF5_PKGCONFIG=hdf5-fake", PKG_CONFIG_PATH=str(library.parent / "pkgconfig"))
        self.assertNotEqual(code, 0, text)
        self.assertIn("is serial (no H5_HAVE_PARALLEL)", text)
        self.assertIn("libhdf5-openmpi-dev", text)

    def test_serial_hdf5_by_prefix(self):
        library = self.fake_hdf5(parallel=False)
        library.symlink_to(HDF5_LIBRARY)
        code, text = self.configure(f"-DHDF5_ROOT={library.parent.parent}")
        self.assertNotEqual(code, 0, text)
        self.assertIn("is serial (no H5_HAVE_PARALLEL)", text)

    def test_hdf5_on_another_mpi(self):
        library = self.fake_hdf5(parallel=True)
        other = library.parent / "libmpich.so.12"
        shared = [CC, "-shared", "-fPIC", "-Wl,--no-as-needed", "-x", "c", os.devnull, "-x", "none"]
        subprocess.run([*shared, f"-Wl,-soname,{other.name}", "-o", str(other)], check=True)
        subprocess.run([*shared, str(other), f"-Wl,-rpath,{library.parent}", "-o", str(library)], check=True)
        code, text = self.configure(f"-DHDF5_ROOT={library.parent.parent}")
        self.assertNotEqual(code, 0, text)
        self.assertIn("was built on another MPI", text)
        self.assertIn("libmpich.so.12", text)

    def test_scalapack_on_another_mpi(self):
        folder = self.work / "prefix/lib"
        (folder / "pkgconfig").mkdir(parents=True)
        (folder / "pkgconfig/scalapack-fake.pc").write_text(
            f"Name: ScaLAPACK\nDescription: made for a test\nVersion: 2.2.1\nLibs: -L{folder} -lscalapack-fake\n")
        library, other = folder / "libscalapack-fake.so", folder / "libmpich.so.12"
        shared = [CC, "-shared", "-fPIC", "-Wl,--no-as-needed", "-x", "c", os.devnull, "-x", "none"]
        subprocess.run([*shared, f"-Wl,-soname,{other.name}", "-o", str(other)], check=True)
        subprocess.run([*shared, str(other), f"-Wl,-rpath,{folder}", "-o", str(library)], check=True)
        code, text = self.configure("-DLONGSPAN_SCALAPACK_PKGCONFIG=scalapack-fake",
                                    PKG_CONFIG_PATH=str(folder / "pkgconfig"))
        self.assertNotEqual(code, 0, text)
        self.assertIn("libscalapack-fake.so was built on another MPI", text)
        self.assertIn("libmpich.so.12", text)
        self.assertIn("libscalapack-openmpi-dev", text)

    def test_the_right_one_by_prefix(self):
        library = self.fake_hdf5(parallel=True)
        library.symlink_to(HDF5_LIBRARY)
        for header in Path(HDF5_INCLUDE).glob("*.h"):
            (library.parent.parent / "include" / header.name).unlink(missing_ok=True)
            (library.parent.parent / "include" / header.name).symlink_to(header)
        code, text = self.configure(f"-DHDF5_ROOT={library.parent.parent}")
        self.assertEqual(code, 0, text)
        self.assertIn(f"HDF5: {library}", text)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
