#include "comm/shared.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/file.h"

enum { MACHINE = 128 };

typedef struct {
    char machine[MACHINE]; /* boot id and host name */
    uint64_t nonce;        /* in the name of the object, if this rank creates one */
    int64_t attached;
} PeerInfo;

static void describe_machine(char out[MACHINE]) {
    char boot[BOOT_ID_SIZE];
    struct utsname name = {0};
    file_boot_id(boot);
    uname(&name);
    snprintf(out, MACHINE, "%s %.64s", boot, name.nodename);
}

static void object_name(char out[64], const PeerInfo *leader) {
    snprintf(out, 64, "/cria-%016llx", (unsigned long long)leader->nonce);
}

/* NULL also when the leader's object lies in another container's /dev/shm. Creating allocates all
 * pages: if /dev/shm is too small, a write to a page without memory would kill the rank later. */
static void *attach(const char *name, int64_t bytes, bool create) {
    int fd = shm_open(name, O_RDWR | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) return NULL;
    void *memory = NULL;
    int error = file_map_shared(fd, bytes, create, &memory);
    close(fd);
    if (error != 0 && create) shm_unlink(name);
    return memory;
}

Status comm_shared_open(void **memory, int64_t bytes, bool *here, Comm *host) {
    *memory = NULL;
    PeerInfo *peers = NEW(PeerInfo, host->size), *mine = &peers[host->rank];
    int leader = 0;
    char name[64];
    describe_machine(mine->machine);
    mine->nonce = (uint64_t)getpid() << 32 ^ (uint64_t)(time_now() * 1e6);
    Status st;
    CHECK_GOTO(comm_all_gather(host, peers, sizeof(PeerInfo), DT_U8, COMM_KIND_OTHER, NULL), done);
    while (strcmp(peers[leader].machine, mine->machine) != 0) leader++;
    bool leads = leader == host->rank;
    object_name(name, &peers[leader]);
    if (leads) *memory = attach(name, bytes, true);
    CHECK_GOTO(comm_barrier(host), done);
    if (!leads) *memory = attach(name, bytes, false);
    mine->attached = *memory != NULL;
    st = comm_all_gather(host, peers, sizeof(PeerInfo), DT_U8, COMM_KIND_OTHER, NULL);
    if (leads && *memory != NULL) shm_unlink(name); /* its memory stays until the last unmap */
    for (int r = 0; r < host->size && st == OK; r++)
        here[r] =
            mine->attached && peers[r].attached && strcmp(peers[r].machine, mine->machine) == 0;
done:
    if (st != OK) {
        comm_shared_close(*memory, bytes);
        *memory = NULL;
    }
    free(peers);
    return st;
}

void comm_shared_close(void *memory, int64_t bytes) {
    if (memory != NULL) munmap(memory, (size_t)bytes);
}
