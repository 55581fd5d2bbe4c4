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
    char machine[MACHINE]; /* the boot of the kernel and the name of the host */
    uint64_t nonce;        /* names the object of this rank, were it to make one */
    int64_t attached;
} Card;

static void describe_machine(char out[MACHINE]) {
    char boot[BOOT_ID_SIZE];
    struct utsname name = {0};
    file_boot_id(boot);
    uname(&name);
    snprintf(out, MACHINE, "%s %.64s", boot, name.nodename);
}

static void object_name(char out[64], const Card *leader) {
    snprintf(out, 64, "/cria-%016llx", (unsigned long long)leader->nonce);
}

/* The object that the leader has made; NULL also when it lies in another container's /dev/shm. Its
 * pages are taken at once: where /dev/shm is too small, a later write to a page that is not there
 * would kill the rank. */
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
    Card *cards = NEW(Card, host->size), *mine = &cards[host->rank];
    int leader = 0;
    char name[64];
    describe_machine(mine->machine);
    mine->nonce = (uint64_t)getpid() << 32 ^ (uint64_t)(time_now() * 1e6);
    Status st;
    CHECK_GOTO(comm_all_gather(host, cards, sizeof(Card), DT_U8, COMM_KIND_OTHER, NULL), done);
    while (strcmp(cards[leader].machine, mine->machine) != 0) leader++;
    bool leads = leader == host->rank;
    object_name(name, &cards[leader]);
    if (leads) *memory = attach(name, bytes, true);
    CHECK_GOTO(comm_barrier(host), done);
    if (!leads) *memory = attach(name, bytes, false);
    mine->attached = *memory != NULL;
    st = comm_all_gather(host, cards, sizeof(Card), DT_U8, COMM_KIND_OTHER, NULL);
    if (leads && *memory != NULL) shm_unlink(name); /* lives on until the last rank lets go */
    for (int r = 0; r < host->size && st == OK; r++)
        here[r] =
            mine->attached && cards[r].attached && strcmp(cards[r].machine, mine->machine) == 0;
done:
    if (st != OK) {
        comm_shared_close(*memory, bytes);
        *memory = NULL;
    }
    free(cards);
    return st;
}

void comm_shared_close(void *memory, int64_t bytes) {
    if (memory != NULL) munmap(memory, (size_t)bytes);
}
