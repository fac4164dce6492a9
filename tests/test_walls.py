#!/usr/bin/env python3
"""Each wall stands: a small tree with one breach is refused, naming file and line.

SPDX-License-Identifier: BSD-3-Clause
"""
import tempfile
import unittest
from pathlib import Path

import walls

HEAD = "/* A file. SPDX-License-Identifier: BSD-3-Clause */\n"
BREACHES = {  # file: (line 2 of it, part of the message)
    "src/comm/a.c": ('#include "kernel/kernel.h"', "comm may not include kernel"),
    "src/kernel/a.c": ("#include <mpi.h>", "mpi.h belongs to"),
    "src/base/a.c": ('#include "comm/context.h"', "base may not include comm"),
    "src/method/a.c": ("#include <hdf5.h>", "hdf5.h belongs to"),
    "src/method/b.c": ('#include "method/absent.h"', "there is no src/method/absent.h"),
    "src/store/a.c": ('#include "kernel/kernel.h"', "store may not include kernel"),
    "src/store/b.c": ('#include "local.h"', "is not of the form"),
    "src/kernel/b.c": ("void *f(void) { return malloc(1); }", "malloc"),
    "src/kernel/c.c": ("int f(void) { return lsp_memory_new(1); }", "do not allocate"),
    "src/study/a.c": ("void f(void) { exit(1); }", "returns a status"),
    "src/comm/b.c": ("char *f(void) { return getenv(0); }", "environment"),
    "src/comm/c.c": ("void *comm = MPI_COMM_WORLD;", "communicator"),
    "src/layer/a.c": ("int f(void) { return MPI_Barrier(0); }", "MPI is called here only"),
    "src/study/b.c": ("void f(void) { pdgesvd_(0); }", "Fortran"),
    "src/layer/b.c": ("void f(void) { printf(0); }", "does not print"),
    "src/other/a.c": ("int other;", "is not a floor"),
    "src/app/a.c": ("#include <H5public.h>", "H5public.h belongs to"),
    "src/app/long.c": ("\n" * 450, "at most 450"),
    "include/longspan/a.h": ('#include "base/memory.h"', "public header"),
}


class Walls(unittest.TestCase):
    def breaches(self, name, text):
        with tempfile.TemporaryDirectory() as folder:
            for path, content in ((name, text), ("src/kernel/kernel.h", HEAD), ("src/comm/context.h", HEAD)):
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_text(content)
            return walls.check(Path(folder))[0]

    def test_a_breach_is_named(self):
        for name, (line, message) in BREACHES.items():
            with self.subTest(name=name):
                found = self.breaches(name, HEAD + line + "\n")
                self.assertEqual(len(found), 1, found)
                self.assertTrue(found[0].startswith(f"{name}:"), found)
                self.assertIn(message, found[0])

    def test_the_licence_line_is_asked_for(self):
        self.assertIn("SPDX", self.breaches("src/app/a.c", "int a;\n")[0])

    def test_comments_and_texts_are_not_code(self):
        clean = HEAD + '/* never calls exit() */\nconst char *text = "printf(MPI_COMM_WORLD)"; // malloc(1)\n'
        self.assertEqual(self.breaches("src/kernel/a.c", clean), [])

    def test_what_is_allowed(self):
        clean = HEAD + '#include "comm/context.h"\n#include "kernel/kernel.h"\nvoid f(void) { lsp_free(0); }\n'
        self.assertEqual(self.breaches("src/method/a.c", clean), [])


if __name__ == "__main__":
    unittest.main()
