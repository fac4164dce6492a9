/* Symbols of BLACS, ScaLAPACK and LAPACK that this floor calls; none of them has a C header. Integers are
 * 32 bits (LP64). For this floor alone. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_FORTRAN_H
#define LSP_LINALG_FORTRAN_H

#include <mpi.h>
#include <stddef.h>

/* BLACS, C interface. */
void Cblacs_pinfo(int *mine, int *processes);
void Cblacs_gridinit(int *context, const char *order, int rows, int cols);
void Cblacs_gridinfo(int context, int *rows, int *cols, int *row, int *col);
void Cblacs_gridexit(int context);
void Cblacs_set(int context, int what, int *value);
void Cblacs_get(int context, int what, int *value);
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);

/* Values of `what` (BLACS/SRC/Bdef.h). */
enum { LSP_BLACS_TOPS_REPEAT = 15, LSP_BLACS_TOPS_COHERENT = 16 };

/* ScaLAPACK. */
void pdgeqrf_(const int *m, const int *n, double *a, const int *ia, const int *ja, const int *desc,
              double *tau, double *work, const int *lwork, int *info);
void pdorgqr_(const int *m, const int *n, const int *k, double *a, const int *ia, const int *ja,
              const int *desc, const double *tau, double *work, const int *lwork, int *info);
void pdgesvd_(const char *job_u, const char *job_vt, const int *m, const int *n, double *a, const int *ia,
              const int *ja, const int *desc, double *s, double *u, const int *iu, const int *ju,
              const int *desc_u, double *vt, const int *ivt, const int *jvt, const int *desc_vt, double *work,
              const int *lwork, int *info, size_t job_u_length, size_t job_vt_length);

/* LAPACK. */
void dgeqrt_(const int *m, const int *n, const int *nb, double *a, const int *lda, double *t, const int *ldt,
             double *work, int *info);
void dgemqrt_(const char *side, const char *trans, const int *m, const int *n, const int *k, const int *nb,
              const double *v, const int *ldv, const double *t, const int *ldt, double *c, const int *ldc,
              double *work, int *info, size_t side_length, size_t trans_length);
void dgesdd_(const char *job, const int *m, const int *n, double *a, const int *lda, double *s, double *u,
             const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork,
             int *info, size_t job_length);

#endif
