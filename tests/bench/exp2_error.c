/* How far vec_power in f32 is from 2^f, in units of the last place, for every f between 2^-31 and 1/2 and below 0. Here
 * with two roundings in each vec_fma; exp2_error_fma has the same with one. Usage: exp2_error.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#define REAL_BITS 32
#ifdef EXP2_VECTORS
#    include EXP2_VECTORS
#else
#    include "kernel/vec_portable.h"
#endif

#include "kernel/vec_math.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
    const uint32_t signs[] = {0, 0x80000000U};
    double worst = 0;
    long long checked = 0;
#pragma omp parallel for reduction(max : worst) reduction(+ : checked)
    for (uint32_t bits = 0x30000000U; bits <= 0x3f000000U; bits++)
        for (int i = 0; i < 2; i++) {
            const uint32_t f_bits = bits | signs[i];
            float f;
            memcpy(&f, &f_bits, sizeof f);
            const double exact = exp2((double)f), ulp = i ? 0x1p-24 : 0x1p-23;
            const double got = (double)vec_power(true, vec_set(f), vec_zero())[0] / (double)POWER_UNIT;
            worst = fmax(worst, fabs(got - exact) / ulp);
            checked++;
        }
    (void)printf("%lld fractions: off by %.3f ulp at most\n", checked, worst);
    return 0;
}
