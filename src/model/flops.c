#include "model/flops.h"

#include <string.h>

double flops_train(const ModelConfig *m, const ParamTable *t, double tokens, double area) {
    double matrix = 0;
    for (int i = 0; i < t->n_params; i++) {
        const Param *p = &t->params[i];
        if (p->ndim == 2 && (i != t->embed || t->head == t->embed))
            matrix += (double)p->rows * (double)p->cols;
    }
    return 6 * matrix * tokens + 12 * area * m->heads * m->head_dim * m->layers;
}

double flops_peak(const char *device_name) {
    static const struct {
        const char *part;
        double tflops;
    } peaks[] = {{"H100 PCIe", 756}, {"H100 NVL", 835}, {"H100", 989}, {"H200", 989},
                 {"GH200", 989},     {"A100", 312},     {"A800", 312}, {"H800", 989},
                 {"L40S", 362},      {"L40", 181},      {"L4", 121},   {"RTX 4090", 165}};
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
        if (device_name != NULL && strstr(device_name, peaks[i].part) != NULL)
            return peaks[i].tflops * 1e12;
    return 0;
}
