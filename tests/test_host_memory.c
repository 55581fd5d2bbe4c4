/* Memory that the host can still give, from the files of a made-up /proc and /sys. */
#include "test.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "train/host_memory.h"

static char root[64];

static void put(const char *path, const char *text) {
    char *full = mem_printf("%s%s", root, path);
    for (char *at = full + strlen(root) + 1; *at != '\0'; at++)
        if (*at == '/') {
            *at = '\0';
            mkdir(full, 0777);
            *at = '/';
        }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(full);
}

static int set_up(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_host_memory.XXXXXX");
    if (mkdtemp(root) == NULL) return -1;
    put("/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n");
    return 0;
}

static int delete_one(const char *path, const struct stat *info, int type, struct FTW *at) {
    (void)info, (void)type, (void)at;
    return remove(path);
}
static int tear_down(void **state) {
    (void)state;
    return nftw(root, delete_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void without_limits_the_host_decides(void **state) {
    (void)state;
    assert_int_equal(host_memory_available(root), 8000 * 1024);
    assert_int_equal(host_memory_available("/no/such/root"), INT64_MAX);
    put("/proc/self/cgroup", "4:memory:/a\n0::/\n");
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/a/memory.stat", "total_rss 12288\n");
    put("/sys/fs/cgroup/memory.max", "max\n");
    assert_int_equal(host_memory_available(root), 8000 * 1024);
}

static void limits_of_groups_and_those_above_count(void **state) {
    (void)state;
    put("/proc/self/cgroup", "9:cpu:/x\n4:memory:/a/b\n1:name=systemd:/\n0::/\n");
    put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "4000000\n");
    put("/sys/fs/cgroup/memory/a/b/memory.stat", "cache 5\nrss 900000\ntotal_rss 1000000\n");
    assert_int_equal(host_memory_available(root), 3000000);
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3500000\n");
    put("/sys/fs/cgroup/memory/a/memory.stat", "total_rss 3600000\n");
    assert_int_equal(host_memory_available(root), 0);

    put("/proc/self/cgroup", "0::/job/step\n");
    put("/sys/fs/cgroup/job/step/memory.max", "max\n");
    put("/sys/fs/cgroup/job/memory.max", "5000000\n");
    put("/sys/fs/cgroup/job/memory.stat", "anon 2000000\nfile 7\n");
    assert_int_equal(host_memory_available(root), 3000000);

    put("/proc/self/cgroup", "4:memory:/docker/0123\n"); /* which a container does not see */
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n");
    put("/sys/fs/cgroup/memory/memory.stat", "total_rss 500000\n");
    assert_int_equal(host_memory_available(root), 1500000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_limits_the_host_decides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_of_groups_and_those_above_count, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
