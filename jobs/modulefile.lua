-- A module for Lmod: copy to MODULEPATH/longspan/VERSION.lua, and set where `cmake --install build/release --prefix DIR` put it.
-- SPDX-License-Identifier: BSD-3-Clause
local prefix = "/opt/longspan/0.1.0"
whatis("Longspan: Transformer attention over sequences too long for one process")
help("mpirun -n P longspan attend deck.ini; longspan --help; jobs: " .. pathJoin(prefix, "share/longspan/jobs"))
-- The Open MPI, parallel HDF5 and ScaLAPACK that it was built with, by the names they have here:
-- depends_on("openmpi", "hdf5", "scalapack", "openblas")
prepend_path("PATH", pathJoin(prefix, "bin"))
prepend_path("MANPATH", pathJoin(prefix, "share/man"))
prepend_path("LD_LIBRARY_PATH", pathJoin(prefix, "lib"))
prepend_path("CMAKE_PREFIX_PATH", prefix)
prepend_path("PKG_CONFIG_PATH", pathJoin(prefix, "lib/pkgconfig"))
setenv("LONGSPAN", pathJoin(prefix, "bin/longspan"))
