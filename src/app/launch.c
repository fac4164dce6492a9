/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/launch.h"

#include "app/collect.h"
#include "app/value.h"
#include "base/checked.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A whole number of the environment, or `otherwise`. */
static int64_t environment_int(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    int64_t value = 0;
    return text && lsp_value_int(text, &value) ? value : otherwise;
}

bool lsp_launch_is_singletons(int *tasks, bool *first)
{
    /* The batch script itself carries SLURM_NTASKS too; only a step has SLURM_STEP_ID. */
    int64_t in_job = getenv("SLURM_STEP_ID") ? environment_int("SLURM_NTASKS", 1) : 1;
    int64_t count = environment_int("SLURM_STEP_NUM_TASKS", in_job);
    *first = environment_int("SLURM_PROCID", 0) == 0;
    if (!lsp_checked_int(count, tasks)) *tasks = 1;
    return *tasks > 1 && !getenv("OMPI_COMM_WORLD_SIZE") && !getenv("PMIX_RANK");
}

bool lsp_launch_is_later_rank(void)
{
    int64_t under_srun = environment_int("PMIX_RANK", environment_int("SLURM_PROCID", 0));
    return environment_int("OMPI_COMM_WORLD_RANK", under_srun) > 0;
}

int lsp_launch_threads(void)
{
    /* May be a list, one number for each nesting level: the first counts. */
    const char *text = getenv("OMP_NUM_THREADS");
    long number = text ? strtol(text, NULL, 10) : 0;
    return number > 0 && number <= 4096 ? (int)number : 0;
}

int64_t lsp_launch_memory(void)
{
    int64_t megabytes = environment_int("SLURM_MEM_PER_NODE", 0);
    if (megabytes <= 0) {
        int64_t per_cpu = environment_int("SLURM_MEM_PER_CPU", 0);
        int64_t cpus = environment_int("SLURM_CPUS_ON_NODE", 0);
        if (per_cpu <= 0 || cpus <= 0 || !lsp_checked_mul(per_cpu, cpus, &megabytes)) return 0;
    }
    int64_t bytes = 0;
    return lsp_checked_mul(megabytes, 1 << 20, &bytes) ? bytes : 0;
}

int64_t lsp_launch_sockets(void)
{
    char line[256] = "";
    FILE *stream = fopen("/sys/devices/system/node/online", "r");
    if (!stream) return 1;
    if (!fgets(line, sizeof line, stream)) line[0] = '\0';
    (void)fclose(stream);
    line[strcspn(line, "\n")] = '\0';
    return lsp_max(1, lsp_value_list(line, NULL, 0));
}

bool lsp_launch_seconds_left(double *seconds)
{
    int64_t end = environment_int("SLURM_JOB_END_TIME", 0);
    *seconds = difftime((time_t)end, time(NULL));
    return end > 0;
}

static const char *const limit_names[] = {"the machine", "the cgroup", "Slurm", "plan.memory_per_node"};
enum { LIMIT_MACHINE, LIMIT_CGROUP, LIMIT_SLURM, LIMIT_DECK };

int64_t lsp_launch_least_memory(int64_t available, bool cgroup, int64_t slurm, double asked, int *which)
{
    int64_t limit = available > 0 ? available : INT64_MAX;
    *which = cgroup ? LIMIT_CGROUP : LIMIT_MACHINE;
    if (slurm > 0 && slurm < limit) {
        limit = slurm;
        *which = LIMIT_SLURM;
    }
    if (asked > 0 && asked < (double)limit) {
        limit = (int64_t)asked;
        *which = LIMIT_DECK;
    }
    return limit;
}

int64_t lsp_launch_memory_limit(lsp_app *app, const char **source)
{
    const char *kind = NULL;
    int64_t available = lsp_memory_available(&kind);
    int name = 0;
    int64_t limit =
        lsp_launch_least_memory(available, kind && strcmp(kind, "cgroup") == 0, lsp_launch_memory(),
                                lsp_options_real(app->options, LSP_KEY_PLAN_MEMORY_PER_NODE), &name);
    int64_t lowest = lsp_collect_min_i64(app, limit);
    /* Of ranks with the lowest limit, the one named first. */
    int64_t which = lsp_collect_min_i64(app, limit == lowest ? name : INT_MAX);
    *source = lowest < INT64_MAX ? limit_names[which] : "nothing";
    return lowest < INT64_MAX ? lowest : 0;
}

void lsp_launch_warn_oversubscribed(lsp_app *app)
{
    int excess = app->layout.threads_node - app->layout.cores_node;
    int64_t worst = -lsp_collect_min_i64(app, -excess);
    if (worst <= 0) return;
    int64_t threads = -lsp_collect_min_i64(app, excess == worst ? -app->layout.threads_node : 0);
    if (app->layout.rank != 0) return;
    (void)fprintf(stderr,
                  "longspan: warning: a node runs %lld threads on %lld cores; start fewer ranks, lower "
                  "--compute.threads, or bind ranks to more cores (mpirun --map-by slot:PE=N)\n",
                  (long long)threads, (long long)(threads - worst));
}
