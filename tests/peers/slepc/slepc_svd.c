/* Truncated SVD of a softmax matrix by SLEPc, the peer of `longspan svd`: W = softmax(Q K^T / sqrt(d)) is formed in double
 * as a dense MPI matrix and given to the solver (trlanczos, unless -svd_type says other). Prints one line of JSON.
 *
 *   mpirun -n P slepc_svd -operands FILE -n N -m M -d D -rank R [-rounds 1] [SLEPc's options]
 *
 * FILE: N x D floats of Q, then M x D of K, row-major. seconds: of SVDSolve alone, the slowest rank, of each round; a round
 * makes its solver anew. forming: of W. frobenius_relative: ||W - W_r||_F / ||W||_F from the r singular values.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <slepcsvd.h>
#include <stdio.h>

typedef struct job {
    PetscInt n, m, d, rank, rounds;
    char file[PETSC_MAX_PATH_LEN];
    PetscReal norm;
} job;

static PetscErrorCode read_options(job *j)
{
    PetscBool given = PETSC_FALSE;
    PetscFunctionBeginUser;
    j->rounds = 1;
    PetscCall(PetscOptionsGetString(NULL, NULL, "-operands", j->file, sizeof j->file, &given));
    PetscCheck(given, PETSC_COMM_WORLD, PETSC_ERR_USER_INPUT, "-operands FILE is missing");
    PetscCall(PetscOptionsGetInt(NULL, NULL, "-n", &j->n, NULL));
    PetscCall(PetscOptionsGetInt(NULL, NULL, "-m", &j->m, NULL));
    PetscCall(PetscOptionsGetInt(NULL, NULL, "-d", &j->d, NULL));
    PetscCall(PetscOptionsGetInt(NULL, NULL, "-rank", &j->rank, NULL));
    PetscCall(PetscOptionsGetInt(NULL, NULL, "-rounds", &j->rounds, NULL));
    PetscCheck(j->n > 0 && j->m > 0 && j->d > 0 && j->rank > 0 && j->rounds > 0, PETSC_COMM_WORLD,
               PETSC_ERR_USER_INPUT, "-n, -m, -d, -rank and -rounds are 1 or more");
    PetscFunctionReturn(0);
}

/* Rows [begin, begin + rows) of a part of the file that starts after `skip` floats. */
static PetscErrorCode read_rows(const job *j, PetscInt skip, PetscInt begin, PetscInt rows, float **values)
{
    PetscFunctionBeginUser;
    PetscCall(PetscMalloc1(rows * j->d, values));
    FILE *file = fopen(j->file, "rb");
    PetscCheck(file, PETSC_COMM_SELF, PETSC_ERR_FILE_OPEN, "cannot open %s", j->file);
    long at = (long)(skip + begin * j->d) * (long)sizeof **values;
    size_t wanted = (size_t)(rows * j->d);
    PetscBool right =
        fseek(file, at, SEEK_SET) == 0 && fread(*values, sizeof **values, wanted, file) == wanted;
    (void)fclose(file);
    PetscCheck(right, PETSC_COMM_SELF, PETSC_ERR_FILE_READ, "%s is too short", j->file);
    PetscFunctionReturn(0);
}

static void softmax_row(const job *j, const float *q, const float *k, double *w)
{
    double top = -INFINITY, sum = 0;
    for (PetscInt c = 0; c < j->m; c++) {
        double dot = 0;
#pragma omp simd reduction(+ : dot)
        for (PetscInt i = 0; i < j->d; i++) dot += (double)q[i] * (double)k[c * j->d + i];
        w[c] = dot / sqrt((double)j->d);
        if (w[c] > top) top = w[c];
    }
    for (PetscInt c = 0; c < j->m; c++) {
        w[c] = exp(w[c] - top);
        sum += w[c];
    }
    for (PetscInt c = 0; c < j->m; c++) w[c] /= sum;
}

static PetscErrorCode form(job *j, Mat *w)
{
    PetscInt begin, end, lead;
    PetscScalar *values;
    double *row;
    float *q, *k;
    PetscFunctionBeginUser;
    PetscCall(MatCreateDense(PETSC_COMM_WORLD, PETSC_DECIDE, PETSC_DECIDE, j->n, j->m, NULL, w));
    PetscCall(MatGetOwnershipRange(*w, &begin, &end));
    PetscCall(read_rows(j, 0, begin, end - begin, &q));
    PetscCall(read_rows(j, j->n * j->d, 0, j->m, &k));
    PetscCall(PetscMalloc1(j->m, &row));
    PetscCall(MatDenseGetLDA(*w, &lead));
    PetscCall(MatDenseGetArrayWrite(*w, &values));
    for (PetscInt i = 0; i < end - begin; i++) {
        softmax_row(j, q + i * j->d, k, row);
        for (PetscInt c = 0; c < j->m; c++) values[c * lead + i] = row[c];
    }
    PetscCall(MatDenseRestoreArrayWrite(*w, &values));
    PetscCall(MatAssemblyBegin(*w, MAT_FINAL_ASSEMBLY));
    PetscCall(MatAssemblyEnd(*w, MAT_FINAL_ASSEMBLY));
    PetscCall(MatNorm(*w, NORM_FROBENIUS, &j->norm));
    PetscCall(PetscFree(row));
    PetscCall(PetscFree(q));
    PetscCall(PetscFree(k));
    PetscFunctionReturn(0);
}

/* One decomposition: its time, its error, and how it went. */
static PetscErrorCode solve(const job *j, Mat w, double *seconds, double *relative, PetscInt *iterations)
{
    SVD svd;
    PetscInt converged;
    double started, square = (double)(j->norm * j->norm);
    PetscFunctionBeginUser;
    PetscCall(SVDCreate(PETSC_COMM_WORLD, &svd));
    PetscCall(SVDSetOperators(svd, w, NULL));
    PetscCall(SVDSetType(svd, SVDTRLANCZOS));
    PetscCall(SVDSetDimensions(svd, j->rank, PETSC_DEFAULT, PETSC_DEFAULT));
    PetscCall(SVDSetFromOptions(svd));
    PetscCall(SVDSetUp(svd));
    PetscCallMPI(MPI_Barrier(PETSC_COMM_WORLD));
    started = MPI_Wtime();
    PetscCall(SVDSolve(svd));
    *seconds = MPI_Wtime() - started;
    PetscCallMPI(MPI_Allreduce(MPI_IN_PLACE, seconds, 1, MPI_DOUBLE, MPI_MAX, PETSC_COMM_WORLD));
    PetscCall(SVDGetConverged(svd, &converged));
    PetscCheck(converged >= j->rank, PETSC_COMM_WORLD, PETSC_ERR_NOT_CONVERGED,
               "%" PetscInt_FMT " of %" PetscInt_FMT " singular values converged", converged, j->rank);
    for (PetscInt r = 0; r < j->rank; r++) {
        PetscReal sigma;
        PetscCall(SVDGetSingularTriplet(svd, r, &sigma, NULL, NULL));
        square -= (double)(sigma * sigma);
    }
    *relative = square > 0 ? sqrt(square) / (double)j->norm : 0;
    PetscCall(SVDGetIterationNumber(svd, iterations));
    PetscCall(SVDDestroy(&svd));
    PetscFunctionReturn(0);
}

static PetscErrorCode run(void)
{
    job j = {0};
    Mat w;
    double forming, seconds, relative = 0;
    PetscInt iterations = 0;
    PetscFunctionBeginUser;
    PetscCall(read_options(&j));
    forming = MPI_Wtime();
    PetscCall(form(&j, &w));
    forming = MPI_Wtime() - forming;
    PetscCall(PetscPrintf(PETSC_COMM_WORLD, "{\"seconds\": ["));
    for (PetscInt i = 0; i < j.rounds; i++) {
        PetscCall(solve(&j, w, &seconds, &relative, &iterations));
        PetscCall(PetscPrintf(PETSC_COMM_WORLD, "%s%.6f", i ? ", " : "", seconds));
    }
    PetscCall(PetscPrintf(PETSC_COMM_WORLD,
                          "], \"forming\": %.6f, \"norm\": %.12g, \"frobenius_relative\": %.9g, \"rank\": "
                          "%" PetscInt_FMT ", \"iterations\": %" PetscInt_FMT "}\n",
                          forming, (double)j.norm, relative, j.rank, iterations));
    PetscCall(MatDestroy(&w));
    PetscFunctionReturn(0);
}

int main(int argc, char **argv)
{
    PetscCall(SlepcInitialize(&argc, &argv, NULL, "Truncated SVD of a softmax matrix by SLEPc.\n"));
    PetscCall(run());
    PetscCall(SlepcFinalize());
    return 0;
}
