/* Memory left (machine, control groups v1 and v2) and taken. SPDX-License-Identifier: BSD-3-Clause */
#include "base/machine.h"

#include <inttypes.h>
#include <longspan/study.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, LINE_BYTES = 4608 };

/* The files of one control-group version. */
typedef struct group_files {
    const char *limit, *usage, *reclaimable; /* the last is a field of memory.stat */
} group_files;

static const group_files files_v2 = {"memory.max", "memory.current", "inactive_file"};
static const group_files files_v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};

/* First integer in a file; false when there is none ("max") or no file. */
static bool read_number(const char *folder, const char *name, int64_t *value)
{
    char path[PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool found = fscanf(file, "%" SCNd64, value) == 1;
    (void)fclose(file);
    return found;
}

/* The integer after `field` (and a ':' or blanks) at the start of a line. */
static bool read_field(const char *folder, const char *name, const char *field, int64_t *value)
{
    char path[PATH_BYTES + 64], line[LINE_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool found = false;
    size_t length = strlen(field);
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, field, length) != 0 || !strchr(": \t", line[length]) || !line[length]) continue;
        found = sscanf(line + length + 1, "%" SCNd64, value) == 1;
    }
    (void)fclose(file);
    return found;
}

/* Lowers *least to what group `path` and the groups around it leave. In a container the path may be that
 * of the host: levels that are not mounted here are passed over, up to the mount's own top. */
static void walk_groups(const char *mount, const char *path, const group_files *files, int64_t *least)
{
    char folder[PATH_BYTES];
    int length = snprintf(folder, sizeof folder, "%s%s", mount, path);
    if (length < 0 || (size_t)length >= sizeof folder) return;
    size_t top = strlen(mount);
    for (;;) {
        int64_t limit = 0, usage = 0, cached = 0;
        if (read_number(folder, files->limit, &limit) && read_number(folder, files->usage, &usage)) {
            /* File pages not in use are counted, but given up as soon as memory is wanted. */
            if (!read_field(folder, "memory.stat", files->reclaimable, &cached)) cached = 0;
            int64_t taken = usage > cached ? usage - cached : 0;
            int64_t left = limit > taken ? limit - taken : 0;
            if (left < *least) *least = left;
        }
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= top || !slash) return;
        *(slash < folder + top ? folder + top : slash) = '\0';
    }
}

static bool names_memory(char *controllers)
{
    char *state = NULL;
    for (char *word = strtok_r(controllers, ",", &state); word; word = strtok_r(NULL, ",", &state))
        if (strcmp(word, "memory") == 0) return true;
    return false;
}

/* Lines of proc/self/cgroup are NUMBER:CONTROLLERS:PATH; version 2 has no controllers there. */
static void scan_groups(const char *root, int64_t *least)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        controllers++;
        *group++ = '\0';
        if (*controllers == '\0') {
            (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup", root);
            walk_groups(path, group, &files_v2, least);
            (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup/unified", root);
            walk_groups(path, group, &files_v2, least);
        } else if (names_memory(controllers)) {
            (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory", root);
            walk_groups(path, group, &files_v1, least);
        }
    }
    (void)fclose(file);
}

int64_t lsp_machine_memory_available(const char *root, const char **source)
{
    char folder[PATH_BYTES];
    (void)snprintf(folder, sizeof folder, "%s/proc", root);
    int64_t machine = INT64_MAX, group = INT64_MAX, kib = 0;
    if (read_field(folder, "meminfo", "MemAvailable", &kib)) machine = kib * 1024;
    scan_groups(root, &group);
    bool known = machine != INT64_MAX || group != INT64_MAX;
    if (source) *source = !known ? "unknown" : group < machine ? "cgroup" : "machine";
    int64_t least = group < machine ? group : machine;
    if (!known) return 0;
    return least > 0 ? least : 1;
}

int64_t lsp_memory_available(const char **source)
{
    return lsp_machine_memory_available("", source);
}

/* Not getrusage: its maximum is handed on through exec, so it may be a launcher's. */
int64_t lsp_memory_peak(void)
{
    int64_t kib = 0;
    return read_field("/proc/self", "status", "VmHWM", &kib) ? kib * 1024 : 0;
}
