#include "bench/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/base.h"
#include "base/median.h"

/* What nvml.h declares of the functions used here; its names and values are stable. */
typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    int value_type, result;
    union {
        double d;
        unsigned u;
        unsigned long long ull;
    } value;
} FieldValue;
enum { CLOCK_SM = 1, FIELD_POWER_INSTANT = 186 };

enum { READINGS = 4096, PERIOD_NS = 2000000 };

struct Nvml {
    void *library, *device;
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*fields)(void *device, int count, FieldValue *values);
    int (*shutdown)(void);
    pthread_t thread;
    bool watching;
    atomic_bool stop;
    int n_mhz, n_watts;
    double mhz[READINGS], watts[READINGS];
};

/* POSIX lets dlsym's pointer be a function; ISO C has no cast for it. */
static bool find(void *library, const char *name, void *function) {
    *(void **)function = dlsym(library, name);
    return *(void **)function != NULL;
}

static bool open_device(Nvml *n, const char *pci_bus_id) {
    int (*init)(void), (*by_pci)(const char *, void **);
    return find(n->library, "nvmlInit_v2", &init) &&
           find(n->library, "nvmlShutdown", &n->shutdown) &&
           find(n->library, "nvmlDeviceGetHandleByPciBusId_v2", &by_pci) &&
           find(n->library, "nvmlDeviceGetClockInfo", &n->clock) &&
           find(n->library, "nvmlDeviceGetFieldValues", &n->fields) && init() == 0 &&
           by_pci(pci_bus_id, &n->device) == 0;
}

Nvml *nvml_open(const char *pci_bus_id) {
    Nvml *n = NEW(Nvml, 1);
    n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (n->library != NULL && open_device(n, pci_bus_id)) return n;
    nvml_close(n);
    return NULL;
}

void nvml_close(Nvml *n) {
    if (n == NULL) return;
    if (n->device != NULL) n->shutdown();
    if (n->library != NULL) dlclose(n->library);
    free(n);
}

static void read_once(Nvml *n) {
    unsigned mhz;
    FieldValue power = {.field = FIELD_POWER_INSTANT};
    if (n->clock(n->device, CLOCK_SM, &mhz) == 0 && n->n_mhz < READINGS) n->mhz[n->n_mhz++] = mhz;
    if (n->fields(n->device, 1, &power) == 0 && power.result == 0 && n->n_watts < READINGS)
        n->watts[n->n_watts++] = 1e-3 * power.value.u;
}

static void *watch(void *nvml) {
    Nvml *n = nvml;
    while (!atomic_load(&n->stop)) {
        read_once(n);
        nanosleep(&(struct timespec){.tv_nsec = PERIOD_NS}, NULL);
    }
    return NULL;
}

void nvml_watch_start(Nvml *n) {
    if (n == NULL) return;
    n->n_mhz = n->n_watts = 0;
    atomic_store(&n->stop, false);
    n->watching = pthread_create(&n->thread, NULL, watch, n) == 0;
}

void nvml_watch_stop(Nvml *n, double *mhz, double *watts) {
    *mhz = *watts = NAN;
    if (n == NULL || !n->watching) return;
    atomic_store(&n->stop, true);
    pthread_join(n->thread, NULL);
    n->watching = false;
    if (n->n_mhz > 0) *mhz = median(n->mhz, n->n_mhz);
    if (n->n_watts > 0) *watts = median(n->watts, n->n_watts);
}
