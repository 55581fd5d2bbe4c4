#include "ckpt/run_layout.h"

#include <stdlib.h>
#include <string.h>

int run_layout_count(const RunLayout *l) {
    return l->optim->n_states * l->table->n_params;
}

char *run_layout_name(const RunLayout *l, int i) {
    return mem_printf("%s%s", l->optim->states[i / l->table->n_params].prefix,
                      run_layout_param(l, i)->name);
}

SafeTensor *run_layout_tensors(const RunLayout *l) {
    SafeTensor *list = NEW(SafeTensor, run_layout_count(l));
    for (int i = 0; i < run_layout_count(l); i++) {
        const Param *p = run_layout_param(l, i);
        list[i] = (SafeTensor){.name = run_layout_name(l, i),
                               .dtype = DT_F32,
                               .ndim = p->ndim,
                               .shape = {p->rows, p->cols}};
    }
    return list;
}

void run_layout_free(const RunLayout *l, SafeTensor *tensors) {
    for (int i = 0; i < run_layout_count(l); i++) free(tensors[i].name);
    free(tensors);
}
