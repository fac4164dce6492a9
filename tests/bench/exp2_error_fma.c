/* exp2_error with FMAs, on AVX2. SPDX-License-Identifier: BSD-3-Clause */
#pragma GCC target("avx2,fma,f16c")
#define EXP2_VECTORS "kernel/vec_avx2.h"
#include "exp2_error.c"
