#include "train/host_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* The number after `key` at the start of a line, or -1. */
static int64_t read_number(const char *path, const char *key) {
    FILE *f = fopen(path, "r");
    if (f == NULL) return -1;
    char line[256], *end;
    size_t n = strlen(key);
    int64_t found = -1;
    while (found < 0 && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, n) == 0) {
            long long x = strtoll(line + n, &end, 10);
            if (end != line + n) found = x;
        }
    fclose(f);
    return found;
}

static int64_t number_in(const char *dir, const char *file, const char *key) {
    char *path = mem_printf("%s/%s", dir, file);
    int64_t x = read_number(path, key);
    free(path);
    return x;
}

/* What the limit of one group leaves. The page cache does not count as used: it can be reclaimed.
 */
static int64_t group_leaves(const char *dir, bool v1) {
    int64_t limit = number_in(dir, v1 ? "memory.limit_in_bytes" : "memory.max", "");
    int64_t used = number_in(dir, "memory.stat", v1 ? "total_rss " : "anon ");
    return limit >= 0 && used >= 0 ? i64_max(0, limit - used) : INT64_MAX;
}

/* The least that `group` ("/a/b") and its parents leave. In a container that shows only its own
 * groups the path is not found, and the root group counts. */
static int64_t groups_leave(const char *mount, char *group, bool v1) {
    int64_t least = INT64_MAX;
    for (;;) {
        char *dir = mem_printf("%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
        least = i64_min(least, group_leaves(dir, v1));
        free(dir);
        char *slash = strrchr(group, '/');
        if (slash == NULL || strcmp(group, "/") == 0 || *group == '\0') return least;
        *slash = '\0';
    }
}

int64_t host_memory_available(const char *root) {
    char *meminfo = mem_printf("%s/proc/meminfo", root),
         *own = mem_printf("%s/proc/self/cgroup", root);
    char *v1 = mem_printf("%s/sys/fs/cgroup/memory", root),
         *v2 = mem_printf("%s/sys/fs/cgroup", root);
    int64_t kib = read_number(meminfo, "MemAvailable:");
    int64_t bytes = kib >= 0 ? 1024 * kib : INT64_MAX;
    char line[4096];
    FILE *f = fopen(own, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) { /* "4:memory:/a/b", "0::/a/b" */
        line[strcspn(line, "\n")] = '\0';
        char *rest = line;
        strsep(&rest, ":");
        const char *controllers = strsep(&rest, ":");
        if (rest == NULL) continue;
        if (strcmp(controllers, "memory") == 0)
            bytes = i64_min(bytes, groups_leave(v1, rest, true));
        else if (controllers[0] == '\0')
            bytes = i64_min(bytes, groups_leave(v2, rest, false));
    }
    if (f != NULL) fclose(f);
    free(meminfo);
    free(own);
    free(v1);
    free(v2);
    return bytes;
}
