/* nvml.h: clock and power of a GPU while something runs, from NVIDIA's management library, which is
 * loaded at run time: it comes with the driver, not with the toolkit. */
#ifndef CRIA_BENCH_NVML_H
#define CRIA_BENCH_NVML_H

typedef struct Nvml Nvml;

/* The GPU with this PCI bus id ("0000:1a:00.0"), as CUDA and NVML both write it. NULL when there is
 * no library or it does not answer; all functions take NULL. */
Nvml *nvml_open(const char *pci_bus_id);
void nvml_close(Nvml *n);

/* Between start and stop a thread reads every 2 ms. stop returns the medians of the SM clock in MHz
 * and of the power in W; NaN where nothing was read. */
void nvml_watch_start(Nvml *n);
void nvml_watch_stop(Nvml *n, double *mhz, double *watts);

#endif
